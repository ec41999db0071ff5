"""A training update causes no device synchronization: no value is read back, and nothing is copied to the device.

The device is "meta", whose tensors have no values: reading one is an error.
"""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings

SIZES = {"patch_size": [16, 16], "encoder_width": 32, "encoder_depth": 2, "encoder_heads": 4, "tokenizer_depth": 2}
SIZES |= {"decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2, "estimator_depth": 1, "num_codebooks": 2}
SIZES |= {"codebook_size": 8, "codebook_dim": 8}
STAGES = {
    "cold start": Stage("encoder", 10),
    "live tokenizer": Stage("encoder", 10, targets="tokenizer"),
    "tokenizer": Stage("tokenizer", 10),
    "joint": Stage("joint", 10, tokenizer_every=1),
}


class Traffic(TorchDispatchMode):
    """Fails on a copy from one device to another."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            assert source.device == out.device, f"{list(source.shape)} goes from {source.device} to {out.device}"
        return out


@pytest.fixture(autouse=True)
def plain_products(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # none for "meta"


def update(model, stage, source, padding, codes=None):
    out = model(source, padding, stage, 0, codes)
    (out.loss / out.sample_size).backward()
    model.commit()
    model.zero_grad()
    return out


def make(**settings):
    """A model on the device as after its first update: what starts once has started."""
    model = Bridle(BridleSettings(**{**SIZES, **settings})).train().to("meta")
    model.begin_stage(STAGES["tokenizer"])
    for part, cache in (
        (model.quantizer, "_initialized_cache"),
        (model.latent_norm, "_initialized_cache"),
        (model.teacher_norm, "_initialized_cache"),
    ):
        assert getattr(part, cache) is False
        setattr(part, cache, True)
    return model


def check(model, stage, shape, padded, codes=None):
    source = torch.randn(shape, device="meta")
    padding = torch.zeros((shape[0], *shape[2:]) if len(shape) > 2 else shape, device="meta").bool() if padded else None
    update(model, stage, source, padding, codes)  # what is sent once has been sent
    with Traffic():
        update(model, stage, source, padding, codes)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_synchronizes(stage, padded):
    check(make(), STAGES[stage], (3, 32000), padded)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"decoder_window": [], "predict_share": 0.3, "num_masks": 2},
        {"decoder_kind": "convolution", "decoder_window": []},
        {"masking": "lines"},
        {"masking": "block"},
        {"masking": "tube"},
        {"checkpoint_activations": True},
    ],
    ids=str,
)
def test_no_option_synchronizes(settings, padded):
    check(make(**settings), STAGES["cold start"], (3, 32000), padded)


@pytest.mark.parametrize("padded", [False, True])
def test_cached_codes_and_images_do_not_synchronize(padded):
    codes = torch.zeros(3, 16, 2, dtype=torch.long, device="meta")
    check(make(modality="image"), STAGES["live tokenizer"], (3, 3, 64, 64), padded, codes)


def test_synchronizations_are_detected():
    x = torch.ones(3, device="meta")
    for read in (lambda: x.sum().item(), lambda: x[x > 0], lambda: bool(x[0]), lambda: x.tolist()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()
    with Traffic(), pytest.raises(AssertionError, match="goes from cpu to meta"):
        torch.ones(2).to("meta")
