"""torchvision's transforms work with a CPU build of torch."""

import pytest

TRANSFORMS = """
import torch
from torchvision.transforms import v2
torch.manual_seed(1)
pixels = torch.randint(256, (2, 3, 20, 30), dtype=torch.uint8)
augmented = v2.RandAugment(2, 9)(pixels)
mixed, labels = v2.CutMix(num_classes=4)(pixels.float(), torch.tensor([0, 3]))
report([list(augmented.shape), list(mixed.shape), labels.sum(1).tolist()])
"""
WITHOUT = ["allow_torchvision_without_cuda"]


def test_transforms_work(run_python):
    outcome, stderr = run_python(TRANSFORMS)
    assert outcome == [[2, 3, 20, 30], [2, 3, 20, 30], [1.0, 1.0]], stderr


def test_import_fails_without_patch(run_python):
    outcome, stderr = run_python(TRANSFORMS, without=WITHOUT)
    if outcome is not None:
        pytest.skip("the C++ extension of this torchvision matches this torch")
    assert "nms does not exist" in stderr
