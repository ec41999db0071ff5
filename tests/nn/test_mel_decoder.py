"""From codes to log-mel: levels, padding, frozen tokenizer, impossible inputs."""

import pytest
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.mel_decoder import DECIBELS, MelDecoder
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

SIZES = dict(encoder_width=16, encoder_depth=1, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, num_codebooks=3, num_mel_bins=40)
SETTINGS = BridleSettings(**SIZES, fbank_mean=-5.0, fbank_std=3.0, patch_size=[8, 16])
WAVES = torch.randn(3, 6000, generator=torch.Generator().manual_seed(0)).cumsum(1).sin() * 0.3
PADDING = torch.arange(6000) >= torch.tensor([6000, 4100, 2000])[:, None]


@pytest.fixture
def decoder():
    """With codebooks that have been started."""
    torch.manual_seed(0)
    bridle = Bridle(SETTINGS).train()
    bridle.begin_stage(Stage("tokenizer", 5))
    bridle(WAVES, None, Stage("tokenizer", 5))
    bridle.commit()
    model = MelDecoder(SETTINGS, width=16, depth=1, num_heads=2)
    weights = {name: value for name, value in bridle.state_dict().items()}
    model.tokenizer.load_state_dict({n: v for n, v in weights.items() if n in model.tokenizer.state_dict()})
    return model


def test_estimates_use_the_sum_of_the_first_levels(decoder):
    out = decoder.eval()(WAVES)
    codes, _, grid = decoder.tokenizer.tokenize(WAVES)
    books = decoder.tokenizer.quantizer.codebooks.codes
    total = torch.zeros(3, codes.shape[1], 8)
    for level in range(4):
        torch.testing.assert_close(out.estimates[level], decoder.decoder(total, grid, None))
        if level < 3:
            total = total + books[level][codes[..., level]]
    assert len(out.estimates) == 4 and (out.estimates[2] - out.estimates[3]).abs().max() > 1e-4


def test_training_keeps_a_random_number_of_levels_per_clip(decoder):
    everything = decoder.eval()(WAVES).estimates
    decoder.train()
    found = set()
    for seed in range(30):
        torch.manual_seed(seed)
        (estimate,) = decoder(WAVES).estimates
        for clip in range(3):
            (level,) = [k for k in range(4) if torch.allclose(estimate[clip], everything[k][clip], atol=1e-6)]
            found.add((clip, level))
    assert len(found) == 12


def test_tokenizer_is_frozen(decoder):
    assert decoder.tokenizer.estimator is None  # it has no part in the log-mel
    assert not any(p.requires_grad for p in decoder.tokenizer.parameters())
    before = {name: value.clone() for name, value in decoder.tokenizer.state_dict().items()}
    assert not any(module.training for module in decoder.train().tokenizer.modules())
    out = decoder(WAVES, PADDING)
    sum(out.absolute_error()).backward()
    assert all(p.grad is None for p in decoder.tokenizer.parameters())
    assert all(p.grad is not None for p in decoder.decoder.parameters())
    after = decoder.tokenizer.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_error_ignores_padding(decoder):
    out = decoder.eval()(WAVES, PADDING)
    expected = [0.0] * 4
    for clip, length in enumerate([6000, 4100, 2000]):
        alone = decoder(WAVES[clip : clip + 1, :length])
        fbank = decoder.front_end.fbank(WAVES[clip : clip + 1, :length])[0][0].double()
        for level, estimate in enumerate(alone.estimates):
            mel = decoder.log_mel(decoder.tokenizer.tokenize(WAVES[clip : clip + 1, :length])[0], level)[0]
            normalized = (mel.double()[: len(fbank)] + 5) / 6
            expected[level] += float((normalized - fbank).abs().sum())
            assert len(mel) == -(-len(fbank) // 8) * 8 and estimate.shape[1] == len(mel) // 8 * 3
    torch.testing.assert_close(torch.stack(out.absolute_error()).double(), torch.tensor(expected).double())
    frames = [1 + (length - 400) // 160 for length in (6000, 4100, 2000)]
    assert int(out.valid.sum()) == 40 * sum(frames) and out.std == 3.0
    assert pytest.approx(10.0) == DECIBELS * torch.tensor(10.0).log().item()


def test_codes_of_fewer_levels_are_decoded(decoder):
    decoder.eval()
    codes = decoder.tokenizer.tokenize(WAVES)[0]
    torch.testing.assert_close(decoder.log_mel(codes[..., :1]), decoder.log_mel(codes, 1))


@pytest.mark.parametrize(
    ("shape", "levels", "sentence"),
    [
        ((1, 6, 2), 3, "3 levels of codes of 2; expected at most 3"),
        ((1, 6, 4), None, "4 levels of codes of 4; expected at most 3"),
        ((1, 7, 3), None, "7 patches; expected a multiple of the 3 of a time step"),
        ((1, 0, 3), None, "0 patches"),
    ],
)
def test_impossible_codes_are_errors(decoder, shape, levels, sentence):
    with pytest.raises(InputError, match=sentence):
        decoder.log_mel(torch.zeros(shape, dtype=torch.long), levels)


def test_impossible_settings_are_errors():
    with pytest.raises(InputError, match="a tokenizer of image; expected one of sound"):
        MelDecoder(BridleSettings(modality="image"))
    with pytest.raises(InputError, match="heads that divide the width"):
        MelDecoder(SETTINGS, width=10, num_heads=4)


def test_log_mel_of_codes_needs_no_gradient(decoder):
    codes, _, _ = decoder.tokenizer.tokenize(WAVES)
    assert not decoder.train().log_mel(codes).requires_grad
