"""Probes: choices on validation, refitting, multi-label, intervals."""

from __future__ import annotations

import numpy as np
import pytest

from bridle_fairseq.evaluation import probe
from bridle_fairseq.evaluation.classifiers import logistic_regression
from bridle_fairseq.evaluation.probe import Split


def split(values: np.ndarray, train: int = 120, valid: int = 60) -> Split:
    return Split(values[:train], values[train : train + valid], values[train + valid :])


@pytest.fixture
def labels() -> np.ndarray:
    return np.array(["ant", "bee", "cat"])[np.random.default_rng(0).integers(0, 3, 300)]


def informative(labels: np.ndarray, strength: float, seed: int, width: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, width)) * strength
    return centres[np.unique(labels, return_inverse=True)[1]] + rng.normal(size=(len(labels), width))


def test_separable_features_and_noise(labels: np.ndarray) -> None:
    good = probe.linear_probe({"x": split(informative(labels, 4.0, 1))}, split(labels))
    noise = probe.linear_probe({"x": split(informative(labels, 0.0, 1))}, split(labels))
    assert good.score > 0.95
    assert noise.score < 0.5


def test_scale_and_offset_invariance(labels: np.ndarray) -> None:
    features = informative(labels, 1.0, 2)
    plain = probe.linear_probe({"x": split(features)}, split(labels))
    scaled = probe.linear_probe({"x": split(features * np.logspace(-5, 5, 8) + 300)}, split(labels))
    assert scaled.score == pytest.approx(plain.score, abs=0.02)


def test_constant_feature(labels: np.ndarray) -> None:
    features = np.hstack([informative(labels, 4.0, 1), np.full((300, 1), -15.9)])
    assert probe.linear_probe({"x": split(features)}, split(labels)).score > 0.95


def test_choice_is_made_on_validation(labels: np.ndarray) -> None:
    good, bad = informative(labels, 4.0, 1), informative(labels, 0.0, 2)
    looks_good = Split(good[:120], good[120:180], bad[180:])  # worthless on the test part alone
    looks_bad = Split(bad[:120], bad[120:180], good[180:])
    result = probe.linear_probe({"looks good": looks_good, "looks bad": looks_bad}, split(labels))
    assert result.candidate == "looks good"
    assert result.valid_score > 0.95
    assert result.score < 0.5


def test_ties_are_decided_by_likelihood(labels: np.ndarray) -> None:
    features = informative(labels, 30.0, 1)
    result = probe.linear_probe({"x": split(features)}, split(labels), inverse_regularizations=(1e-2, 1.0))
    assert result.settings == {"C": 1.0}


def test_likelihood_is_that_of_the_true_classes() -> None:
    scores, targets = np.array([[0.5, 0.25], [0.75, 0.1]]), np.array([[1, 0], [0, 0]])
    assert probe._likelihood(scores, targets, multi=False) == pytest.approx(np.log(0.5))  # of the first row alone
    expected = np.log([0.5, 0.75, 0.25, 0.9]).mean()  # whether each class is there or not
    assert probe._likelihood(scores, targets, multi=True) == pytest.approx(expected)


def test_classes_unseen_in_training_are_errors(labels: np.ndarray) -> None:
    changed = labels.copy()
    changed[-60:] = "yak"
    result = probe.linear_probe({"x": split(informative(labels, 4.0, 1))}, split(changed))
    assert result.score == pytest.approx(0.5, abs=0.05)


def test_bootstrap_interval(labels: np.ndarray) -> None:
    features = informative(labels, 1.0, 1)
    few = probe.linear_probe({"x": split(features)}, split(labels), resamples=300)
    again = probe.linear_probe({"x": split(features)}, split(labels), resamples=300)
    assert (
        few.interval
        == again.interval
        != probe.linear_probe({"x": split(features)}, split(labels), resamples=300, seed=1).interval
    )
    low, high = few.interval
    assert low < few.score < high
    rows = len(labels) - 180
    deviation = (few.score * (1 - few.score) / rows) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.25)  # of a binomial


def test_knn_probe(labels: np.ndarray) -> None:
    good = {"x": split(informative(labels, 2.0, 1)), "noise": split(informative(labels, 0.0, 2))}
    result = probe.knn_probe(good, split(labels))
    assert result.candidate == "x" and result.score > 0.9
    assert result.settings["k"] > 1 and set(result.settings) == {"k", "temperature"}
    assert result.candidate_scores["x"] == result.valid_score > result.candidate_scores["noise"]


def test_refit_on_training_and_validation(labels: np.ndarray) -> None:
    features = informative(labels, 1.0, 3)
    features[120:180] += 6 * np.eye(8)[0]  # so the mean and deviation of training alone are others
    names = labels.copy()
    names[140:180] = "yak"  # a class that training does not have, in validation
    names_of_grids = {
        probe.linear_probe: "inverse_regularizations",
        probe.ridge_probe: "regularizations",
        probe.knn_probe: "neighbours",
    }
    for function, name in names_of_grids.items():
        again = function({"x": split(features)}, split(names), refit=True)
        known = np.flatnonzero(names[:180] != "yak")
        both = Split(features[known], features[120:140], features[180:])
        answers = Split(names[known], names[120:140], names[180:])
        value = next(iter(again.settings.values()))
        chosen = {name: [int(value) if name == "neighbours" else value]}
        if "temperature" in again.settings:
            chosen["temperatures"] = [again.settings["temperature"]]
        assert function({"x": both}, answers, **chosen).score == again.score


@pytest.fixture
def measured(monkeypatch) -> list[float]:
    """The regularizations that are tried; the validation score is best at 1e-6 and rises towards it."""
    values: list[float] = []

    def fits(features, targets, multi, grid):
        def fit(settings):
            values.extend(settings.values())
            value = values[-1]
            return lambda x: np.eye(3)[: len(x)] * value

        return fit

    for name in ("logistic_regression", "ridge_regression"):
        monkeypatch.setattr(probe, name, fits)
    monkeypatch.setattr(probe, "score_of", lambda scores, targets, multi: -abs(np.log10(scores.max()) + 6))
    return values


def test_range_is_extended_while_the_score_rises(measured) -> None:
    features, answers = Split(*[np.eye(3)] * 3), Split(*[np.arange(3)] * 3)
    result = probe.linear_probe({"x": features}, answers)
    assert measured == [*probe.INVERSE_REGULARIZATIONS, 1e-5, 1e-6, 1e-7]
    assert result.settings == {"C": 1e-6} and not result.at_end


def test_end_of_the_range_is_said(measured, monkeypatch) -> None:
    monkeypatch.setattr(probe, "INVERSE_LIMITS", (1e-5, 1e4))
    features, answers = Split(*[np.eye(3)] * 3), Split(*[np.arange(3)] * 3)
    result = probe.linear_probe({"x": features}, answers)
    assert result.settings == {"C": 1e-5} and result.at_end
    assert probe.linear_probe({"x": features}, answers, [0.1]).at_end is False  # nothing to choose from


def test_range_of_ridge_is_not_extended(measured) -> None:
    features, answers = Split(*[np.eye(3)] * 3), Split(*[np.arange(3)] * 3)
    result = probe.ridge_probe({"x": features}, answers, [0.1, 0.01])
    assert measured == [0.01, 0.1] and result.settings == {"regularization": 0.01} and result.at_end


def test_equal_scores_at_an_end_are_no_reason_to_go_on(labels: np.ndarray) -> None:
    result = probe.linear_probe({"x": split(informative(labels, 30.0, 1))}, split(labels))
    assert result.valid_score == 1 and result.settings == {"C": 100.0} and not result.at_end


def test_more_features_than_rows(labels: np.ndarray) -> None:
    from sklearn.linear_model import LogisticRegression

    features = split(informative(labels, 0.3, 4, width=200))
    scaled = [(part - features.train.mean(0)) / features.train.std(0) for part in features]
    classes, targets = np.unique(split(labels).train, return_inverse=True)
    scorer = logistic_regression(scaled[0], np.eye(len(classes))[targets], False, [])({"C": 0.1})
    plain = LogisticRegression(C=0.1, max_iter=300, tol=1e-3).fit(scaled[0], split(labels).train)
    np.testing.assert_allclose(scorer(scaled[2]), plain.predict_proba(scaled[2]), atol=1e-6)


def test_ridge_probe_equals_a_float64_solve(labels: np.ndarray) -> None:
    features = split(informative(labels, 1.0, 6))
    result = probe.ridge_probe({"x": features}, split(labels), regularizations=(0.1,))
    x, valid, test = ((part - features.train.mean(0)) / features.train.std(0) for part in features)
    classes, numbers = np.unique(split(labels).train, return_inverse=True)
    y = np.eye(3)[numbers]
    weight = np.linalg.solve(x.T @ x + 0.1 * np.trace(x.T @ x) / 8 * np.eye(8), x.T @ (y - y.mean(0)))
    predicted = classes[(test @ weight + y.mean(0)).argmax(1)]
    assert 0.5 < result.score == (predicted == split(labels).test).mean() < 0.99
    best = probe.ridge_probe({"x": features, "noise": split(informative(labels, 0.0, 2))}, split(labels))
    assert best.candidate == "x" and best.valid_score >= result.valid_score and set(best.settings) == {"regularization"}


def test_ties_of_ridge_are_decided_by_the_error() -> None:
    """Scores of ridge are no probabilities: the likelihood prefers those far above 1."""
    sign = np.array([[-1.0], [1.0]]).repeat(5, 0)
    features, answers = Split(sign, 2 * sign, sign), Split(*[(sign[:, 0] > 0).astype(int)] * 3)
    # the validation scores of the true class are 1.5, 1.0 and 0.8
    result = probe.ridge_probe({"x": features}, answers, regularizations=(1e-3, 1.0, 2.0))
    assert result.valid_score == 1 and result.settings == {"regularization": 1.0}


def several(labels: np.ndarray) -> np.ndarray:
    """Any number of four classes a row; the last class never occurs."""
    number = np.unique(labels, return_inverse=True)[1]
    rng = np.random.default_rng(5)
    first = np.eye(4)[number]
    return np.maximum(first, np.eye(4)[rng.integers(0, 3, len(labels))] * (rng.random(len(labels)) < 0.3)[:, None])


@pytest.mark.parametrize("function", [probe.linear_probe, probe.ridge_probe, probe.knn_probe])
def test_multi_label_is_scored_by_map(labels: np.ndarray, function) -> None:
    targets = several(labels)
    assert targets.sum(1).max() > 1 and targets[:, 3].sum() == 0
    good = function({"x": split(informative(labels, 4.0, 1))}, split(targets), resamples=50)
    noise = function({"x": split(informative(labels, 0.0, 1))}, split(targets))
    assert good.score > 0.8 > 0.6 > noise.score
    assert good.interval[0] <= good.score <= good.interval[1]


def test_settings_to_choose_from_are_those_of_earlier_versions() -> None:
    """Those of the logistic regression, as long as the score is not best at an end of them."""
    assert probe.INVERSE_REGULARIZATIONS == (0.0001, 0.001, 0.01, 0.1, 1, 10, 100)
    assert probe.NEIGHBOURS == (1, 3, 5, 10, 20, 50, 100) and probe.TEMPERATURES == (0.02, 0.07, 0.2)


def test_number_of_neighbours_is_chosen_up_to_the_number_of_rows(labels: np.ndarray) -> None:
    features = {"x": split(informative(labels, 1.0, 1))}
    assert probe.knn_probe(features, split(labels), neighbours=(3, 121)).settings["k"] == 3
    assert probe.knn_probe(features, split(labels), neighbours=(121, 500)).settings["k"] == 120
    assert probe.knn_probe(features, split(labels), neighbours=(120,)).settings["k"] == 120
