"""CodeTokenizer, and the order in which Bridle builds its modules, on which old checkpoints and seeds depend."""

import pytest
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.code_tokenizer import CodeTokenizer
from bridle_fairseq.nn.position import sincos_position
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings

SIZES = dict(encoder_width=16, encoder_depth=2, encoder_heads=2, decoder_width=16, decoder_depth=2, decoder_heads=2)
SIZES |= dict(tokenizer_depth=2, estimator_depth=1, num_codebooks=2, codebook_size=8, codebook_dim=4)
AUDIO = dict(num_mel_bins=32, patch_size=[8, 8])
IMAGE = dict(modality="image", patch_size=[8, 8], decoder_kind="convolution", decoder_window=[])
VIDEO = dict(modality="video", patch_size=[2, 8, 8], decoder_window=[])
MODULES = ["encoder", "decoder", "tokenizer", "quantizer", "estimator", "projection", "latent_norm", "teacher_norm"]

# Sums of absolute values of encoder, decoder, tokenizer, estimator and projection, and the next random number after
# construction with seed 0: recorded at commit 2d5e4c3, before the tokenizer was a class of its own.
RECORDED = {
    "audio": (AUDIO, [1134.296792, 1088.288695, 1197.020888, 576.748619, 159.783255], 0.3745138645172119),
    "image": (IMAGE, [1248.894106, 298.752028, 1316.978062, 577.352793, 279.079897], 0.3745138645172119),
    "video": (VIDEO, [1362.820147, 1093.760927, 1425.879788, 572.764317, 395.769438], 0.5201965570449829),
}


@pytest.mark.parametrize("modality", RECORDED)
def test_construction_draws_the_recorded_random_numbers(modality):
    settings, sums, following = RECORDED[modality]
    torch.manual_seed(0)
    state = Bridle(BridleSettings(**SIZES, **settings)).state_dict()
    assert float(torch.rand(())) == following
    for name, expected in zip(("encoder", "decoder", "tokenizer", "estimator", "projection"), sums, strict=True):
        total = sum(float(value.double().abs().sum()) for key, value in state.items() if key.split(".")[0] == name)
        assert total == pytest.approx(expected, abs=1e-5)


def test_order_of_keys_and_parameters():
    model = Bridle(BridleSettings(**SIZES, **AUDIO))
    assert list(dict.fromkeys(key.split(".")[0] for key in model.state_dict())) == ["tokenizer_ready", *MODULES]
    parameters = list(dict.fromkeys(name.split(".")[0] for name, _ in model.named_parameters()))
    assert parameters == ["encoder", "decoder", "tokenizer", "estimator"]


@pytest.mark.parametrize("with_estimator", [True, False])
def test_keys_are_those_of_the_full_model_without_encoder_and_decoder(with_estimator):
    full, alone = Bridle(BridleSettings(**SIZES)), CodeTokenizer(BridleSettings(**SIZES), with_estimator)
    left_out = {"encoder", "decoder"} if with_estimator else {"encoder", "decoder", "estimator"}
    assert list(alone.state_dict()) == [key for key in full.state_dict() if key.split(".")[0] not in left_out]
    assert not any(hasattr(alone, name) for name in ("encoder", "decoder", "encoder_loss"))


def test_random_projection_is_float32_whatever_the_context():
    model = CodeTokenizer(BridleSettings(**SIZES, **AUDIO))
    patches = model.front_end(torch.randn(2, 9000, generator=torch.Generator().manual_seed(0)))
    x = patches.x @ model.projection.embed.T + sincos_position(patches.grid, 16, like=patches.x)
    expected = x @ model.projection.project.T
    for enabled in (False, True):
        with torch.autocast("cpu", enabled=enabled):
            found = model.latents(patches, from_tokenizer=False)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert model.eval().codes(patches, from_tokenizer=False).shape == (*patches.x.shape[:2], 2)


def test_codes_and_estimates_are_those_of_the_full_model():
    torch.manual_seed(0)
    full, stage = Bridle(BridleSettings(**SIZES, **AUDIO)).train(), Stage("tokenizer", 5)
    waveform = torch.randn(3, 9000).cumsum(1).sin()
    padding = torch.arange(9000) >= torch.tensor([9000, 4000, 900])[:, None]
    full.begin_stage(stage)
    full(waveform, padding, stage)
    full.commit()
    full.eval()
    alone = CodeTokenizer(BridleSettings(**SIZES, **AUDIO)).eval()
    alone.load_state_dict({key: value for key, value in full.state_dict().items() if key in alone.state_dict()})
    assert alone.has_tokenizer
    (codes, patch_padding, grid), expected = alone.tokenize(waveform, padding), full.tokenize(waveform, padding)
    assert torch.equal(codes, expected[0]) and torch.equal(patch_padding, expected[1]) and grid == expected[2]
    assert len(codes.unique()) > 2
    estimate = full.estimator(full.quantizer.decode(codes), grid, patch_padding)
    assert torch.equal(alone.decode(codes, grid, patch_padding), estimate.detach())


def test_loaded_state_says_what_the_codebooks_quantize():
    torch.manual_seed(0)
    trained, stage = Bridle(BridleSettings(**SIZES, **AUDIO)), Stage("tokenizer", 5)
    trained.begin_stage(stage)
    other = Bridle(BridleSettings(**SIZES, **AUDIO))
    assert trained.has_tokenizer and not other.has_tokenizer
    other.load_state_dict(trained.state_dict())
    assert other.has_tokenizer
