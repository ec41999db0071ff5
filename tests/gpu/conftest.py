"""What a GPU computes, beside the same on the CPU. Without a GPU these tests are skipped.

With ``BRIDLE_TEST_DEVICE=cpu`` they compare the CPU with itself, so that they are known to work before there is a GPU.
"""

import contextlib
import os

import pytest
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.masking import MASKINGS, Mask, Targets, choose_targets
from bridle_fairseq.nn.settings import BridleSettings

DEVICE = os.environ.get("BRIDLE_TEST_DEVICE", "cuda")
SIZES = {"encoder_width": 64, "encoder_depth": 2, "encoder_heads": 4, "tokenizer_depth": 2, "estimator_depth": 1}
SIZES |= {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 4, "mask_ratio": 0.6}
SIZES |= {"num_codebooks": 3, "codebook_size": 16, "codebook_dim": 16}
MODALITIES = {
    "audio": {"num_mel_bins": 64, "patch_size": [8, 16]},
    "image": {"modality": "image", "patch_size": [8, 8], "decoder_window": [2, 3]},
    "video": {"modality": "video", "patch_size": [2, 8, 8], "decoder_window": []},
}
SHAPES = {"audio": (4, 12000), "image": (4, 3, 48, 40), "video": (3, 3, 6, 32, 24)}


@pytest.fixture(scope="session", autouse=True)
def device():
    """The device that is tested."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU; BRIDLE_TEST_DEVICE=cpu runs these tests on the CPU")
    return torch.device(DEVICE)


@pytest.fixture
def no_waits(device):
    """``with no_waits():`` a call that synchronizes with a GPU raises."""

    @contextlib.contextmanager
    def watch():
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    return watch


@pytest.fixture(scope="session")
def make():
    """``make(modality, **settings)``: a model on the CPU, always of the same weights."""

    def build(modality="audio", **settings):
        torch.manual_seed(0)
        return Bridle(BridleSettings(**{**SIZES, **MODALITIES[modality], **settings})).train()

    return build


@pytest.fixture(scope="session")
def batch():
    """``batch(modality, seed)``: inputs and their padding mask, on the CPU."""

    def draw(modality="audio", seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape = SHAPES[modality]
        if modality == "audio":
            source = 0.3 * torch.rand(shape, generator=generator).cumsum(1).sin()
            source += 0.03 * torch.randn(shape, generator=generator)
        else:
            source = torch.rand(shape, generator=generator)
        padding = torch.zeros(shape[0], *shape[min(len(shape) - 1, 2) :] if modality != "audio" else shape[1:]).bool()
        padding[-1, ..., shape[-1] * 2 // 3 :] = True
        return source.masked_fill(padding if modality == "audio" else padding.unsqueeze(1), 0.0), padding

    return draw


def moved(values, device):
    return type(values)(*(None if value is None else value.to(device) for value in values))


@pytest.fixture
def same_masks(monkeypatch):
    """Masks and targets are drawn on the CPU, so that every device has the same."""

    def drawn_on_cpu(mask_of):
        def draw(batch, grid, ratio, *, padding_mask=None, device=None, generator=None):
            padding = None if padding_mask is None else padding_mask.cpu()
            generator = torch.Generator().manual_seed(0)
            return moved(mask_of(batch, grid, ratio, padding_mask=padding, generator=generator), device)

        return draw

    def targets_drawn_on_cpu(mask, share=1.0, generator=None):
        generator = torch.Generator().manual_seed(1)
        return moved(choose_targets(moved(mask, "cpu"), share, generator), mask.masked.device)

    assert all(field in Mask._fields + Targets._fields for field in ("masked", "places"))
    for name, mask_of in list(MASKINGS.items()):
        monkeypatch.setitem(MASKINGS, name, drawn_on_cpu(mask_of))
    monkeypatch.setattr("bridle_fairseq.nn.bridle.choose_targets", targets_drawn_on_cpu)


def distance(found, expected):
    """Norm of the difference of two tensors or lists of tensors, relative to that of the expected values."""
    if isinstance(found, torch.Tensor):
        found, expected = [found], [expected]
    found, expected = (torch.cat([t.detach().double().cpu().flatten() for t in ts]) for ts in (found, expected))
    assert found.isfinite().all()
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="session")
def relative():
    """See :func:`distance`."""
    return distance
