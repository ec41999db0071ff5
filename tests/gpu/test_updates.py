"""Forward and backward passes of every stage on the device, against float64 on the CPU."""

import contextlib
import copy
import functools

import pytest
import torch

from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.optim.bridle_adamw import BridleAdamW, BridleAdamWConfig

STAGES = {
    "cold start": Stage("encoder", 10, targets="projection"),
    "live tokenizer": Stage("encoder", 10, targets="tokenizer"),
    "tokenizer": Stage("tokenizer", 10),
    "joint": Stage("joint", 10, tokenizer_every=1),
}
# Largest relative distance of the loss, and of all gradients together. On the CPU it is a fifth of this or less.
BOUNDS = {"float32": (1e-5, 1e-4), "bfloat16": (5e-3, 0.03), "float16": (1e-3, 5e-3)}
TF32 = (1e-3, 5e-3)  # what convolutions of float32 are computed in on a GPU
OTHER_CODES = {"bfloat16": (0.03, 0.4), "float16": (5e-3, 0.15)}  # rounding gives some patches another code
OPTIONS = {
    "global": {"decoder_window": []},
    "convolution": {"decoder_kind": "convolution", "decoder_window": []},
    "lines": {"masking": "lines"},
    "block": {"masking": "block"},
    "tube": {"masking": "tube"},
    "two masks": {"num_masks": 2, "predict_share": 0.3},
    "recomputed": {"checkpoint_activations": True},
    "soft codes": {"codes_per_level": 3},
    "two books": {"num_codebooks": 4, "num_books": 2},
    "one cosine book": {"num_codebooks": 1, "codebook_metric": "cosine"},
    "targets of bands": {"target_norm": "band"},
}


def started(model, batch, stage="tokenizer"):
    """The model after an update of the tokenizer and one of the stage: codebooks and running averages are there."""
    for name in dict.fromkeys(["tokenizer", stage]):
        model.begin_stage(STAGES[name])
        model(*batch, STAGES[name])
        model.commit()
    return model


def step(model, stage, source, padding, codes=None):
    """Loss and gradients of an update; parts without a gradient are left out."""
    model.zero_grad()
    out = model(source, padding, stage, 0, codes)
    out.loss.backward()
    return out.loss, [p.grad for p in model.parameters() if p.grad is not None]


@pytest.fixture(scope="module")
def exact(make, batch):
    """``exact(modality, stage, option)`` -> model in float32, fixed codes, and loss and gradients in float64."""

    @functools.cache
    def of(modality, stage, option=None):
        model = started(make(modality, **OPTIONS.get(option, {})), batch(modality), stage)
        source, padding = batch(modality, seed=1)
        codes = None
        if STAGES[stage].kind == "encoder":
            patches = model.patches(source, padding)
            from_tokenizer = STAGES[stage].targets == "tokenizer"
            codes = copy.deepcopy(model).eval().codes(patches, from_tokenizer, model.settings.codes_per_level)
        reference = copy.deepcopy(model).double()
        loss, gradients = step(reference, STAGES[stage], source, padding, codes)
        assert {g.dtype for g in gradients} == {torch.float64}
        return model, codes, loss, gradients

    return of


@pytest.fixture
def compare(exact, relative, batch, device, same_masks):
    """``compare(modality, stage, precision, option)`` -> distances of loss and gradients on the device."""

    def on_device(modality, stage, precision, option=None):
        model, codes, loss, gradients = exact(modality, stage, option)
        model = copy.deepcopy(model).to(device)
        model.settings.precision = precision if precision == "bfloat16" else "float32"
        source, padding = (x.to(device) for x in batch(modality, seed=1))
        codes = None if codes is None else codes.to(device)
        with torch.autocast(device.type, torch.float16, enabled=precision == "float16"):  # fairseq's common.amp
            found = step(model, STAGES[stage], source, padding, codes)
        return relative(found[0], loss), relative(found[1], gradients)

    return on_device


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("modality", ["audio", "image", "video"])
def test_stage_is_close_to_float64(compare, modality, stage, precision):
    loss, gradients = compare(modality, stage, precision)
    has_codes = stage in ("tokenizer", "joint") and precision in OTHER_CODES
    bounds = OTHER_CODES[precision] if has_codes else BOUNDS[precision]
    assert loss < bounds[0] and gradients < bounds[1], (loss, gradients)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("option", OPTIONS)
def test_option_is_close_to_float64(compare, option, precision):
    loss, gradients = compare("audio", "cold start", precision, option)
    bounds = TF32 if option == "convolution" and precision == "float32" else BOUNDS[precision]
    assert loss < bounds[0] and gradients < bounds[1], (loss, gradients)


@pytest.mark.parametrize(("codes_precision", "share"), [("float32", 0.01), ("float16", 0.05), ("bfloat16", 0.3)])
def test_codes_are_those_of_the_cpu(make, batch, device, codes_precision, share):
    """Up to a share of the patches, with another code at one level or more."""
    model = started(make(codes_precision=codes_precision), batch()).eval()
    source, padding = batch(seed=1)
    model.settings.codes_precision = "float32"
    expected, padded, _ = model.tokenize(source, padding)
    assert min(len(level.unique()) for level in expected[~padded].T) > 8
    model.to(device).settings.codes_precision = codes_precision
    found = model.tokenize(source.to(device), padding.to(device))[0]
    assert found.device.type == device.type
    changed = (found.cpu() != expected)[~padded].any(-1).float().mean()
    assert changed <= share, changed


def test_training_follows_the_cpu(make, batch, device, same_masks):
    """Losses of float32 through all stages: k-means, restarts, running averages, frozen parts and the optimizer."""
    losses, books = [], []
    for place in ("cpu", device):
        model = make(codebook_decay=0.9).to(place)
        of_run = []
        for stage in STAGES.values():
            model.begin_stage(stage)
            parameters = [p for part in model.trained_parts(stage) for p in part.parameters()]
            optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
            for number in range(3):
                out = model(*(x.to(place) for x in batch(seed=number)), stage, number)
                (out.loss / out.sample_size).backward()
                optimizer.step()
                optimizer.zero_grad()
                model.commit()
                of_run.append((out.loss / out.sample_size).detach().cpu())
        losses.append(torch.stack(of_run))
        books.append(model.quantizer.codebooks)
    torch.testing.assert_close(losses[1], losses[0], rtol=2e-3, atol=0)
    assert books[1].codes.device.type == device.type
    usage = [book.usage.cpu().sort(descending=True).values for book in books]
    torch.testing.assert_close(usage[1], usage[0], rtol=0, atol=0.02)


def test_optimizer_is_fused_and_equals_that_of_the_cpu(device, no_waits):
    """No step waits for the device, except the first one, which creates the state."""
    torch.manual_seed(0)
    start = [torch.randn(40, 30), torch.randn(40), torch.randn(1, 1, 30)]
    gradients = [[torch.randn_like(value) for value in start] for _ in range(4)]
    ends = []
    for place in ("cpu", device):
        parameters = [torch.nn.Parameter(value.to(place)) for value in start]
        optimizer = BridleAdamW(BridleAdamWConfig(lr=[1e-2], weight_decay=0.1), parameters)
        assert all(group["fused"] for group in optimizer.param_groups)
        half = torch.tensor(0.5, device=place)
        for number, values in enumerate(gradients):
            for parameter, value in zip(parameters, values, strict=True):
                parameter.grad = value.clone().to(place)
            with no_waits() if number else contextlib.nullcontext():
                optimizer.multiply_grads(half)
                norm = optimizer.clip_grad_norm(3.0)
                optimizer.step()
        ends.append([norm.cpu(), *(p.detach().cpu() for p in parameters)])
    for found, expected in zip(*reversed(ends), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_model_moves_to_the_device_and_back(make, batch, device, same_masks, stage):
    """A model that goes on from a state of the device: no buffer or cache stays where it was."""
    model = started(make(), batch()).to(device)
    on_device = [x.to(device) for x in batch(seed=1)]
    step(model, STAGES[stage], *on_device)
    model.commit()
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    fresh = make()
    fresh.load_state_dict(state)
    expected = step(fresh, STAGES[stage], *batch(seed=2))[0]
    for place in ("cpu", device, "cpu"):
        model.to(place)
        found = step(model, STAGES[stage], *(x.to(place) for x in batch(seed=2)))[0]
        model.discard()
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=0)
