"""Classifier: pooling of padded batches, any length, frozen encoder."""

from __future__ import annotations

import pytest
import torch

from bridle_fairseq.nn.classifier import Classifier
from bridle_fairseq.nn.pooling_kinds import OF_SOUND, POOLINGS
from bridle_fairseq.nn.pretrained_encoder import ClassifierRegularization
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

SETTINGS = BridleSettings(encoder_width=16, encoder_depth=2, encoder_heads=2, num_mel_bins=40, patch_size=[8, 16])


def classifier(pooling: str = "mean", **options) -> Classifier:
    torch.manual_seed(0)
    return Classifier(SETTINGS, num_classes=5, pooling=pooling, **options)


def clips() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [0.1 * torch.randn(length) for length in (900, 8000, 5000)]


def padded(waves: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True, padding_value=7.0)
    return source, torch.arange(source.shape[1]) >= torch.tensor([len(wave) for wave in waves])[:, None]


@pytest.mark.parametrize("pooling", OF_SOUND)
def test_logits_do_not_depend_on_the_padded_batch(pooling) -> None:
    model = classifier(pooling).eval()
    logits = model(*padded(clips()))
    assert logits.shape == (3, 5) and logits.dtype == torch.float32
    torch.testing.assert_close(logits, torch.cat([model(wave[None]) for wave in clips()]), atol=1e-5, rtol=1e-4)


def test_pooling_widens_the_head() -> None:
    widths = {pooling: classifier(pooling).head.in_features for pooling in OF_SOUND}
    assert widths == {  # 40 mel bins in patches of 16
        **{"mean": 16, "frequency": 3 * 16, "class_token": 16},
        **{"statistics": 2 * 16, "frequency_statistics": 2 * 3 * 16, "segments": 4 * 3 * 16},
    }


def gradients(model: Classifier) -> set[str]:
    model.train()
    model(*padded(clips())).square().sum().backward()
    return {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pooling", OF_SOUND)
def test_gradients_are_finite_where_patches_do_not_vary(pooling) -> None:
    """A clip of one time step has no deviation over time, silence none of any kind."""
    model = classifier(pooling).train()
    source, padding = padded([torch.zeros(8000), 0.1 * torch.randn(300)])
    model(source, padding).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_encoder_learns_unless_frozen() -> None:
    assert gradients(classifier()) == {"encoder", "norm", "head"}
    frozen = classifier(freeze_encoder=True)
    assert gradients(frozen) == {"norm", "head"}
    assert not frozen.encoder.training and frozen.head.training
    assert not any(p.requires_grad for p in frozen.encoder.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_model_gives_float32_logits(dtype) -> None:
    model = classifier().eval()
    expected = model(*padded(clips()))
    logits = model.to(dtype)(*padded(clips()))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, atol=0.05, rtol=0.1)


def test_impossible_settings_are_errors() -> None:
    with pytest.raises(InputError, match=r"model.encoder_heads is 5"):
        Classifier(BridleSettings(encoder_heads=5), 3)


def test_unknown_pooling_is_an_error() -> None:
    with pytest.raises(InputError, match="model.pooling is 'max'; expected one of mean, frequency, class_token"):
        classifier("max")


@pytest.mark.parametrize("pooling", OF_SOUND)
@pytest.mark.parametrize("samples", [300, 16000, 5 * 16000])
def test_any_length_and_any_grid(pooling, samples) -> None:
    """Far longer and far shorter than in pretraining; positions are computed for the grid at hand."""
    options = ClassifierRegularization(mask_time=0.2, mask_frequency=0.0 if POOLINGS[pooling].by_row else 0.2)
    for patch_size, bins in (([8, 16], 40), ([16, 16], 128), ([3, 50], 64)):
        settings = BridleSettings(
            encoder_width=16, encoder_depth=1, encoder_heads=2, num_mel_bins=bins, patch_size=patch_size
        )
        model = Classifier(settings, 5, pooling, regularization=options).eval()
        alone = model(torch.ones(1, samples).cumsum(1).sin())
        assert alone.shape == (1, 5) and torch.isfinite(alone).all()
        source, padding = padded([torch.ones(samples).cumsum(0).sin(), torch.randn(2 * samples)])
        torch.testing.assert_close(model(source, padding)[:1], alone, atol=1e-4, rtol=1e-3)
        assert torch.isfinite(model.train()(source, padding)).all()


def test_masked_patches_do_not_change_training_logits() -> None:
    """With as good as all time steps hidden, what is left is one column: the pooled vector is that of a short clip."""
    torch.manual_seed(0)
    model = classifier(regularization=ClassifierRegularization(mask_time=0.99)).train()
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    assert model(torch.randn(2, 16000)).shape == (2, 5)
    assert seen[0]["visible"].shape == (2, 3)  # one step of 3 rows
