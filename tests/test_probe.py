"""The linear probe: what it chooses by, what it pools, and that its baselines see only what is not padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bridle_fairseq import probe
from bridle_fairseq.probe import Split


def split(values: np.ndarray, train: int = 120, valid: int = 60) -> Split:
    return Split(values[:train], values[train : train + valid], values[train + valid :])


@pytest.fixture
def labels() -> np.ndarray:
    return np.array(["ant", "bee", "cat"])[np.random.default_rng(0).integers(0, 3, 300)]


def informative(labels: np.ndarray, strength: float, seed: int, width: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, width)) * strength
    return centres[np.unique(labels, return_inverse=True)[1]] + rng.normal(size=(len(labels), width))


def test_finds_what_separates_and_nothing_in_noise(labels: np.ndarray) -> None:
    good = probe.linear_probe({"x": split(informative(labels, 4.0, 1))}, split(labels))
    noise = probe.linear_probe({"x": split(informative(labels, 0.0, 1))}, split(labels))
    assert good.accuracy > 0.95
    assert noise.accuracy < 0.5


def test_scale_and_offset_of_a_feature_do_not_matter(labels: np.ndarray) -> None:
    features = informative(labels, 1.0, 2)
    plain = probe.linear_probe({"x": split(features)}, split(labels))
    scaled = probe.linear_probe({"x": split(features * np.logspace(-5, 5, 8) + 300)}, split(labels))
    assert scaled.accuracy == pytest.approx(plain.accuracy, abs=0.02)


def test_a_constant_feature_harms_nothing(labels: np.ndarray) -> None:
    features = np.hstack([informative(labels, 4.0, 1), np.full((300, 1), -15.9)])
    assert probe.linear_probe({"x": split(features)}, split(labels)).accuracy > 0.95


def test_chooses_by_validation_never_by_test(labels: np.ndarray) -> None:
    good, bad = informative(labels, 4.0, 1), informative(labels, 0.0, 2)
    looks_good = Split(good[:120], good[120:180], bad[180:])  # worthless on the test part alone
    looks_bad = Split(bad[:120], bad[120:180], good[180:])
    result = probe.linear_probe({"looks good": looks_good, "looks bad": looks_bad}, split(labels))
    assert result.candidate == "looks good"
    assert result.valid_accuracy > 0.95
    assert result.accuracy < 0.5


def test_a_draw_goes_to_the_likelier(labels: np.ndarray) -> None:
    features = informative(labels, 30.0, 1)
    result = probe.linear_probe({"x": split(features)}, split(labels), inverse_regularisations=(1e-2, 1.0))
    assert result.inverse_regularisation == 1.0


def test_classes_unseen_in_training_count_as_errors(labels: np.ndarray) -> None:
    changed = labels.copy()
    changed[-60:] = "yak"
    result = probe.linear_probe({"x": split(informative(labels, 4.0, 1))}, split(changed))
    assert result.accuracy == pytest.approx(0.5, abs=0.05)


def test_pooling_keeps_frequency_rows_apart_and_leaves_padding_out() -> None:
    x = torch.arange(2 * 6 * 1, dtype=torch.float32).view(2, 6, 1)  # T = 3, F = 2
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    x[1, 4:] = torch.nan  # whatever stands at padding
    by_frequency = probe.pool(x, padding, (3, 2), "frequency")
    assert by_frequency.tolist() == [[2.0, 3.0], [7.0, 8.0]]
    assert probe.pool(x, padding, (3, 2), "mean").tolist() == [[2.5], [7.5]]
    with pytest.raises(ValueError, match="max"):
        probe.pool(x, padding, (3, 2), "max")


def test_log_mel_baselines_equal_those_of_the_clip_alone() -> None:
    torch.manual_seed(0)
    fbank = torch.randn(2, 20, 5)
    padding = torch.zeros(2, 20, dtype=torch.bool)
    padding[1, 13:] = True
    alone = fbank[1:, :13]
    for function in (probe.log_mel_deviation, probe.log_mel_segments):
        torch.testing.assert_close(function(fbank, padding)[1:], function(alone, None))
        torch.testing.assert_close(function(fbank, padding)[:1], function(fbank[:1], None))


def test_log_mel_statistics_are_what_they_are_called() -> None:
    fbank = torch.tensor([[[0.0], [2.0], [4.0], [6.0], [1.0], [1.0], [5.0], [7.0]]])
    assert probe.log_mel_segments(fbank, None).tolist() == [[1.0, 5.0, 1.0, 6.0]]
    mean, deviation = probe.log_mel_deviation(fbank, None)[0].tolist()
    assert mean == pytest.approx(fbank.mean().item())
    assert deviation == pytest.approx(fbank.std(unbiased=False).item())


def test_segments_of_a_clip_shorter_than_their_number() -> None:
    assert probe.log_mel_segments(torch.tensor([[[3.0]]]), None).tolist() == [[3.0, 3.0, 3.0, 3.0]]
    assert torch.isfinite(probe.log_mel_segments(torch.randn(1, 3, 2), None)).all()
