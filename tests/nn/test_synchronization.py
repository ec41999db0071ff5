"""A training update causes no device synchronization: no value is read back, and nothing is copied to the device.

The device is "meta", whose tensors have no values: reading one is an error. Where there is a GPU, the same updates run
on it, and torch raises at a call that synchronizes.
"""

import contextlib
import os

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings

DEVICES = ["meta", *(["cuda"] if torch.cuda.is_available() else [])]
if "BRIDLE_TEST_DEVICE" in os.environ:  # tests/gpu
    DEVICES = ["meta", os.environ["BRIDLE_TEST_DEVICE"]]
SIZES = {"patch_size": [16, 16], "encoder_width": 32, "encoder_depth": 1, "encoder_heads": 4, "tokenizer_depth": 1}
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


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    if request.param == "meta":  # has no autocast
        monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    return request.param


@contextlib.contextmanager
def no_synchronization(device):
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        with Traffic():
            yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def update(model, stage, source, padding, codes=None):
    out = model(source, padding, stage, 0, codes)
    (out.loss / out.sample_size).backward()
    model.commit()
    model.zero_grad()
    return out


def make(device, **settings):
    """A model on the device as after its first update: what starts once has started."""
    model = Bridle(BridleSettings(**{**SIZES, **settings})).train().to(device)
    model.begin_stage(STAGES["tokenizer"])
    for part, cache in (
        (model.quantizer, "_initialized_cache"),
        (model.latent_norm, "_initialized_cache"),
        (model.teacher_norm, "_initialized_cache"),
    ):
        assert getattr(part, cache) is False
        setattr(part, cache, True)
    return model


SHAPES = {"audio": (3, 32000), "image": (3, 3, 64, 48), "video": (2, 3, 4, 32, 48)}


def check(model, stage, device, padded, codes=None):
    shape = SHAPES[model.settings.modality]
    source = torch.randn(shape, device=device)
    padding = None
    if padded:
        padding = torch.zeros((shape[0], *shape[2:]) if len(shape) > 2 else shape, device=device).bool()
        if device != "meta":
            padding[-1, ..., shape[-1] // 2 :] = True
    update(model, stage, source, padding, codes)  # what is sent once has been sent
    with no_synchronization(device):
        update(model, stage, source, padding, codes)


MODALITIES = {
    "audio": {},
    "image": {"modality": "image"},
    "video": {"modality": "video", "patch_size": [2, 16, 16], "decoder_window": []},
}
DECODERS = {
    "windows": {},
    "global": {"decoder_window": []},
    "convolution": {"decoder_kind": "convolution", "decoder_window": []},
}
COMBINATIONS = [  # modality, decoder, masks and other options
    ("audio", "windows", {"codes_per_level": 3, "masking": "lines"}),
    ("audio", "global", {"predict_share": 0.3, "num_masks": 2}),
    ("audio", "convolution", {"masking": "block", "codes_per_level": 2, "num_masks": 2}),
    ("audio", "windows", {"num_books": 2, "target_norm": "band", "checkpoint_activations": True}),
    ("audio", "global", {"num_codebooks": 1, "codebook_metric": "cosine", "latents": "center", "teacher": "plain"}),
    ("image", "windows", {"masking": "block", "num_masks": 3, "predict_share": 0.5}),
    ("image", "global", {"masking": "block", "codes_per_level": 3, "checkpoint_activations": True}),
    ("image", "convolution", {"masking": "random", "num_masks": 2, "predict_share": 0.3}),
    ("video", "global", {"masking": "tube", "num_masks": 2, "codes_per_level": 2}),
    ("video", "convolution", {"masking": "tube", "predict_share": 0.3}),
    ("video", "convolution", {"masking": "block", "target_norm": "patch", "num_masks": 2}),
]


@pytest.mark.parametrize(("modality", "padded"), [("audio", False), *((name, True) for name in MODALITIES)])
@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_synchronizes(device, stage, modality, padded):
    check(make(device, **MODALITIES[modality]), STAGES[stage], device, padded)


@pytest.mark.parametrize(("modality", "decoder", "options"), COMBINATIONS, ids=str)
def test_no_combination_synchronizes(device, modality, decoder, options):
    """In a joint update, which has all losses; a cold start alone takes targets without a mean."""
    model = make(device, **{**MODALITIES[modality], **DECODERS[decoder], **options})
    stage = "cold start" if "target_norm" in options else "joint"
    model.begin_stage(STAGES[stage])
    model.quantizer._initialized_cache = True
    check(model, STAGES[stage], device, padded=True)


@pytest.mark.parametrize("padded", [False, True])
def test_cached_codes_do_not_synchronize(device, padded):
    codes = torch.zeros(3, 12, 2, dtype=torch.long, device=device)
    check(make(device, modality="image"), STAGES["live tokenizer"], device, padded, codes)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_does_not_synchronize(device, precision):
    """Stages that run the tokenizer, for codes and to learn."""
    model = make(device, precision="bfloat16", codes_precision=precision)
    for stage in ("live tokenizer", "tokenizer"):
        check(model, STAGES[stage], device, padded=True)


def test_synchronizations_are_detected():
    x = torch.ones(3, device="meta")
    for read in (lambda: x.sum().item(), lambda: x[x > 0], lambda: bool(x[0]), lambda: x.tolist()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()
    with Traffic(), pytest.raises(AssertionError, match="goes from cpu to meta"):
        torch.ones(2).to("meta")
