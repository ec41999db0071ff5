"""Regularization of fine-tuning: impossible settings, layer-wise decay."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from bridle_fairseq.nn.classifier import Classifier
from bridle_fairseq.nn.ctc import Transcriber
from bridle_fairseq.nn.pretrained_encoder import ClassifierRegularization, check_classifier
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

MISTAKES = [
    ({"drop_path": 1.0}, "mean", False, "model.drop_path is 1.0; expected 0 or more and below 1"),
    ({"mask_time": -0.1}, "mean", False, "model.mask_time is -0.1; expected 0 or more and below 1"),
    ({"mask_frequency": 2}, "mean", False, "model.mask_frequency is 2; expected"),
    ({"layer_decay": 0.0}, "mean", False, "model.layer_decay is 0.0; expected more than 0 and at most 1"),
    ({"spec_augment_frames": -1}, "mean", False, "model.spec_augment_frames is -1; expected 0 or more"),
    ({"warp_frequency": 1.5}, "mean", False, "model.warp_frequency is 1.5; expected 0 to 1"),
    ({"warp_time": -0.1}, "mean", False, "model.warp_time is -0.1; expected 0 to 1"),
    ({"noise": 2.0}, "mean", False, "model.noise is 2.0; expected 0 to 1"),
    ({"mask_frequency": 0.2}, "frequency", False, "model.mask_frequency is 0.2 with model.pooling frequency"),
    ({"mask_frequency": 0.2}, "segments", False, "model.mask_frequency is 0.2 with model.pooling segments"),
    ({"drop_path": 0.1}, "mean", True, "model.drop_path is 0.1 with model.freeze_encoder, .* expected 0.0"),
    ({"layer_decay": 0.75}, "mean", True, "model.layer_decay is 0.75 with model.freeze_encoder, .* expected 1.0"),
    ({"mask_time": 0.2}, "mean", True, "model.mask_time is 0.2 with model.freeze_encoder"),
]


@pytest.mark.parametrize(("settings", "pooling", "freeze", "sentence"), MISTAKES)
def test_impossible_settings_are_errors(settings, pooling, freeze, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        sizes = BridleSettings(encoder_width=16, encoder_heads=2)
        Classifier(sizes, 3, pooling, freeze, ClassifierRegularization(**settings))


def test_possible_settings_with_a_frozen_encoder() -> None:
    check_classifier(ClassifierRegularization(spec_augment_frames=192, spec_augment_mel_bins=48), "frequency", True)


@pytest.mark.parametrize("freeze", [False, True])
def test_a_frozen_encoder_keeps_no_graph(freeze) -> None:
    model = Classifier(BridleSettings(encoder_width=16, encoder_depth=1, encoder_heads=2), 3, freeze_encoder=freeze)
    weight = next(model.encoder.parameters())
    weight.requires_grad_(True)
    with model.encoding(weight.device):
        assert (weight * 2).requires_grad == (not freeze)


def test_layer_wise_learning_rate_decay() -> None:
    settings = BridleSettings(encoder_width=16, encoder_depth=3, encoder_heads=2)
    model = Classifier(settings, 3, regularization=ClassifierRegularization(layer_decay=0.5))
    expected = {"encoder.patch_embed": 0.5**4, "encoder.class_token": 0.5**4, "encoder.norm": 1.0}
    expected |= {f"encoder.blocks.{number}": 0.5 ** (3 - number) for number in range(3)}
    for name, parameter in model.named_parameters():
        scales = [scale for prefix, scale in expected.items() if name.startswith(prefix)] or [1.0]
        assert getattr(getattr(parameter, "param_group", None), "lr_scale", 1.0) == scales[0], name
    plain = Classifier(settings, 3)
    assert not any(hasattr(parameter, "param_group") for parameter in plain.parameters())


def test_regularization_acts_in_training_only() -> None:
    sizes = BridleSettings(encoder_width=16, encoder_depth=2, encoder_heads=2, num_mel_bins=64, patch_size=[8, 16])
    source = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    plain = Classifier(sizes, 3).eval()
    for settings in (
        {"drop_path": 0.5},
        {"spec_augment_frames": 30},
        {"spec_augment_mel_bins": 30},
        {"warp_frequency": 0.2},
        {"warp_time": 0.2},
        {"noise": 1.0},
        {"mask_time": 0.3},
        {"mask_frequency": 0.3},
    ):
        model = Classifier(sizes, 3, regularization=ClassifierRegularization(**settings))
        model.load_state_dict(plain.state_dict())
        expected = plain(source)
        assert torch.equal(model.eval()(source), expected), settings
        torch.manual_seed(3)
        changed = model.train()(source)
        assert not torch.equal(changed, expected) and torch.isfinite(changed).all(), settings
        torch.manual_seed(3)
        assert torch.equal(model(source), changed), settings  # follows from torch's seed


def test_regularization_is_off_by_default() -> None:
    off = {"drop_path": 0.0, "layer_decay": 1.0, "spec_augment_mel_bins": 0, "spec_augment_frames": 0}
    off |= {"warp_frequency": 0.0, "noise": 0.0}
    assert asdict(ClassifierRegularization()) == {**off, "warp_time": 0.0, "mask_time": 0.0, "mask_frequency": 0.0}


def test_heads_draw_the_recorded_random_numbers() -> None:
    """Sums of absolute values with seed 0, as in all earlier versions."""
    sizes = BridleSettings(encoder_width=16, encoder_depth=2, encoder_heads=2, num_mel_bins=64, patch_size=[8, 16])
    torch.manual_seed(0)
    classifier = Classifier(sizes, 9)
    torch.manual_seed(0)
    transcriber = Transcriber(sizes, 9)
    found = [float(head.weight.double().abs().sum()) for head in (classifier.head, transcriber.frame_head)]
    assert found == pytest.approx([2.369167, 37.132493], abs=1e-5)
    assert not classifier.head.bias.any() and not transcriber.frame_head.bias.any()
