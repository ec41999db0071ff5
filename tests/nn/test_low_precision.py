"""Training and codes in low precision against float32."""

import copy

import pytest
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings

SIZES = {"num_mel_bins": 64, "encoder_width": 64, "encoder_depth": 2, "encoder_heads": 4, "mask_ratio": 0.6}
SIZES |= {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2, "tokenizer_depth": 2, "estimator_depth": 1}
SIZES |= {"num_codebooks": 4, "codebook_size": 64, "codebook_dim": 32, "codebook_decay": 0.9}
UPDATES, AVERAGED = 100, 10  # of each stage
# Largest distance of the averaged loss from that in float32, as a share of what the stage gains: cold start, tokenizer.
BOUNDS = torch.tensor([0.005, 0.05])
WAYS = ("autocast", "cast")


def sounds(seed, clips, samples=6000):
    """Three decaying chirps a clip, in noise."""
    draw = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16000
    pitch = 200 * 2 ** (5 * torch.rand(clips, 3, 1, generator=draw))
    glide = 2000 * torch.randn(clips, 3, 1, generator=draw)
    loudness = torch.rand(clips, 3, 1, generator=draw) * torch.exp(-10 * torch.rand(clips, 3, 1, generator=draw) * time)
    wave = loudness * torch.sin(2 * torch.pi * (pitch * time + glide * time.square()))
    return 0.3 * wave.sum(1) + 0.01 * torch.randn(clips, samples, generator=draw)


def train(how):
    """The model after an encoder's and a tokenizer's stage, and the loss of each update."""
    torch.manual_seed(0)
    model = Bridle(BridleSettings(**SIZES, precision="bfloat16" if how == "autocast" else "float32")).train()
    if how == "cast":  # as fairseq's common.bf16: all parameters in bfloat16, steps in float32
        model.bfloat16()
    losses = []
    for stage in (Stage("encoder", UPDATES), Stage("tokenizer", UPDATES)):
        model.begin_stage(stage)
        parameters = [p for part in model.trained_parts(stage) for p in part.parameters()]
        masters = [p.detach().float().clone() for p in parameters]
        optimizer = torch.optim.AdamW(masters, lr=1e-3)
        for update in range(UPDATES):
            torch.manual_seed(update)
            out = model(sounds(update, 6), None, stage)
            (out.loss / out.sample_size).backward()
            for parameter, master in zip(parameters, masters, strict=True):
                master.grad, parameter.grad = parameter.grad.float(), None
            torch.nn.utils.clip_grad_norm_(masters, 3.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_copy_(parameters, masters)
            model.commit()
            losses.append(float(out.loss.detach() / out.sample_size))
    return model, torch.tensor(losses).view(2, -1, AVERAGED).mean(2)


@pytest.fixture(scope="module")
def exact():
    return train("float32")


@pytest.mark.parametrize("how", WAYS)
def test_low_precision_training_is_close_to_float32(exact, how):
    expected, (model, losses) = exact[1], train(how)
    gain = expected[:, 0] - expected[:, -1]
    assert (gain > 0.1 * expected[:, 0]).all()
    distance = (losses - expected).abs().amax(1) / gain
    assert (distance > 0).all() and (distance < BOUNDS).all(), distance
    assert all(book.unique(dim=0).shape == book.shape for book in model.quantizer.codebooks.codes)


def codes(model, **precision):
    model = copy.deepcopy(model).eval()
    vars(model.settings).update(precision)
    return model.tokenize(sounds(999, 64))[0]


def share_changed(actual, expected):
    """Share of patches with another code at one level or more."""
    return float((actual != expected).any(-1).float().mean())


@pytest.mark.parametrize(
    ("precision", "codes_precision", "codes", "training"),
    [
        ("float32", "auto", None, None),
        ("bfloat16", "auto", None, torch.bfloat16),  # float32: this is a CPU
        ("bfloat16", "float16", torch.float16, torch.bfloat16),
        ("float32", "bfloat16", torch.bfloat16, None),
    ],
)
def test_codes_have_a_precision_of_their_own(precision, codes_precision, codes, training):
    """The tokenizer runs in ``codes_precision`` for targets, and in ``precision`` where it learns; None: float32."""
    torch.manual_seed(0)
    model = Bridle(BridleSettings(**SIZES, precision=precision, codes_precision=codes_precision)).train()
    found = []

    def note(*_):
        found.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)

    model.tokenizer.register_forward_pre_hook(note)
    tokenizer, encoder = Stage("tokenizer", 9), Stage("encoder", 9)
    for stage in (tokenizer, encoder):
        model.begin_stage(stage)
        model(sounds(0, 2), None, stage)
        model.commit()
    found_codes, _, grid = model.eval().tokenize(sounds(0, 2))
    model.estimator.register_forward_pre_hook(note)
    model.decode(found_codes, grid)
    assert found == [training, codes, codes, training]


def test_codes_are_float32_on_a_cpu_by_default(exact):
    expected = codes(exact[0])
    assert min(len(level.unique()) for level in expected.flatten(0, 1).T) > 32
    assert torch.equal(codes(exact[0], precision="bfloat16"), expected)


def test_float16_changes_fewer_codes_than_bfloat16(exact):
    """A code changes where rounding moves its vector over a cell's border, so the share grows with the rounding error.

    float16 has 3 bits more than bfloat16: an eighth of the error. A third leaves room for chance and for how a CPU
    sums. The shares themselves follow from the trained codebooks, whose last bits differ between CPUs.
    """
    expected = codes(exact[0])
    changed = {
        kind: share_changed(codes(exact[0], precision="bfloat16", codes_precision=kind), expected)
        for kind in ("float16", "bfloat16")
    }
    assert 0 < changed["bfloat16"] < 0.2
    assert changed["float16"] < changed["bfloat16"] / 3, changed
