"""RandAugment and random erasing: seeding, threads, frames, and missing torchvision."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bridle_fairseq.data.image.augment import IMAGENET_MEAN, StrongImageAugment
from bridle_fairseq.data.image.dataset import ImageDataset
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError


@pytest.fixture
def pixels():
    """One frame twice, 2 x 3 x 24 x 32."""
    frame = torch.randint(256, (3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return torch.stack([frame, frame])


def test_result_depends_on_generator_only(pixels) -> None:
    augment = StrongImageAugment(2, 9, erase=0.5)
    state = torch.get_rng_state()
    first = [augment(pixels, np.random.default_rng(seed)) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again = [augment(pixels, np.random.default_rng(seed)) for seed in range(8)]
    assert all(map(torch.equal, first, again))
    assert len({tuple(item.flatten().tolist()) for item in first}) >= 6
    assert all(item.dtype == torch.uint8 and item.shape == pixels.shape for item in first)


def test_threads_have_independent_generators(pixels) -> None:
    augment, seeds = StrongImageAugment(2, 9, erase=0.5), range(100)
    alone = [augment(pixels, np.random.default_rng(seed)) for seed in seeds]
    torch.manual_seed(3)
    drawn_alone = torch.stack([torch.rand(3) for _ in range(3000)])
    torch.manual_seed(3)
    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(augment, pixels, np.random.default_rng(seed)) for seed in seeds]
        drawn = torch.stack([torch.rand(3) for _ in range(3000)])
    assert all(torch.equal(read.result(), item) for read, item in zip(reading, alone, strict=True))
    assert torch.equal(drawn, drawn_alone)


def test_all_frames_are_changed_alike(pixels) -> None:
    augment = StrongImageAugment(3, 12, erase=1.0)
    for seed in range(12):
        first, second = augment(pixels, np.random.default_rng(seed))
        assert torch.equal(first, second)


def test_erase_probability_and_area(pixels) -> None:
    erased = 0
    for seed in range(100):
        augmented = StrongImageAugment(erase=0.3)(pixels, np.random.default_rng(seed))[0]
        changed = (augmented != pixels[0]).any(0)
        if changed.any():
            erased += 1
            rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
            inside = augmented[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert torch.equal(inside, torch.tensor(IMAGENET_MEAN).view(3, 1, 1).expand_as(inside).byte())
            assert 0.015 <= inside[0].numel() / (24 * 32) <= 0.36
    assert 18 <= erased <= 42


def test_validation_is_not_augmented(tmp_path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    manifest, options = Manifest(tmp_path, ["a.png"], [1]), {"image_size": 16, "valid_crop": 1.0}
    plain = ImageDataset(manifest, **options)[0]["source"]
    valid = ImageDataset(manifest, strong_augment=StrongImageAugment(2, 9), **options)[0]["source"]
    strong = StrongImageAugment(2, 20, erase=1.0)
    train = ImageDataset(manifest, strong_augment=strong, training=True, **options)[0]["source"]
    none = ImageDataset(manifest, strong_augment=StrongImageAugment(), training=True, **options)[0]["source"]
    assert torch.equal(valid, plain) and torch.equal(none, plain) and not torch.equal(train, plain)


def test_missing_torchvision(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert not StrongImageAugment()
    with pytest.raises(InputError, match=r"needs? torchvision.*bridle_fairseq\[images\]"):
        StrongImageAugment(rand_augment=1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rand_augment": -1}, "task.rand_augment is -1"),
        ({"rand_augment": 1, "rand_magnitude": 31}, "task.rand_magnitude 31"),
        ({"erase": 1.1}, "task.erase is 1.1"),
    ],
)
def test_invalid_settings(options, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        StrongImageAugment(**options)
