"""Ridge regression in closed form, against slow float64 solves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bridle_fairseq.evaluation.ridge import REGULARIZATIONS, Ridge, leave_one_out_fit

SHAPES = [(40, 7), (12, 30), (9, 9)]  # more rows than features, fewer, and as many


def problem(rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    return rng.normal(size=(rows, width)) + rng.normal(size=(3, width))[labels] + 5, np.eye(3)[labels]


def solved(x: np.ndarray, y: np.ndarray, queries: np.ndarray, strength: float) -> np.ndarray:
    """Scores with an intercept that is not regularized, by a linear system."""
    centred = x - x.mean(0)
    weight = np.linalg.solve(centred.T @ centred + strength * np.eye(x.shape[1]), centred.T @ (y - y.mean(0)))
    return (queries - x.mean(0)) @ weight + y.mean(0)


@pytest.mark.parametrize(("rows", "width"), SHAPES)
@pytest.mark.parametrize("regularization", [1e-5, 0.1, 1e3])
def test_fit_equals_a_linear_system(rows, width, regularization) -> None:
    x, y = problem(rows, width)
    queries = np.random.default_rng(1).normal(size=(5, width)) + 5
    strength = regularization * np.square(x - x.mean(0)).sum() / min(rows, width)  # the trace is the sum of squares
    expected = solved(x, y, queries, strength)
    np.testing.assert_allclose(Ridge(x, y).fit(regularization)(queries), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_leave_one_out_equals_fits_without_each_row(rows, width) -> None:
    x, y = problem(rows, width)
    strength = 0.1 * np.square(x - x.mean(0)).sum() / min(rows, width)
    found = Ridge(x, y).leave_one_out(0.1)
    for row in range(rows):
        others = np.arange(rows) != row
        np.testing.assert_allclose(found[row], solved(x[others], y[others], x[row : row + 1], strength)[0], rtol=1e-8)


def test_constant_features_predict_the_mean() -> None:
    _, y = problem(12, 4)
    ridge = Ridge(np.full((12, 4), 3.0), y)
    assert np.allclose(ridge.fit(0.1)(np.ones((2, 4))), y.mean(0))
    assert np.isfinite(ridge.leave_one_out(0.1)).all()


def test_regularizations_are_half_decades() -> None:
    assert (REGULARIZATIONS[0], REGULARIZATIONS[5], REGULARIZATIONS[-1]) == (1e-5, 0.00316, 1e3)


def test_regularization_is_chosen_by_leaving_one_out() -> None:
    """Few rows and many features of noise: without regularization little is right; with much of it most is."""
    rng = np.random.default_rng(3)
    labels = np.arange(90) % 3
    features = rng.normal(size=(90, 60)) + 0.5 * rng.normal(size=(3, 60))[labels]
    features = features * np.logspace(-3, 3, 60) + 1000  # of any scale, with offsets
    train, known, test = features[:60], labels[:60], features[60:]

    def accuracy(values: Sequence[float]) -> float:
        return float((leave_one_out_fit(train, known, values)(test).argmax(1) == labels[60:]).mean())

    each = {value: accuracy([value]) for value in REGULARIZATIONS}
    assert min(each.values()) < accuracy(REGULARIZATIONS) and accuracy(REGULARIZATIONS) > 0.8
    ridge = Ridge((train - train.mean(0)) / train.std(0), np.eye(3)[known])
    right = {value: (ridge.leave_one_out(value).argmax(1) == known).mean() for value in REGULARIZATIONS}
    best = [value for value in REGULARIZATIONS if right[value] == max(right.values())]
    assert accuracy(REGULARIZATIONS) in [each[value] for value in best]


def test_features_are_standardized() -> None:
    x, y = problem(30, 5)
    scaled = x * np.logspace(-3, 3, 5) + 1000
    expected = Ridge((x - x.mean(0)) / x.std(0), y).fit(0.1)((x - x.mean(0)) / x.std(0))
    np.testing.assert_allclose(leave_one_out_fit(scaled, y.argmax(1), [0.1])(scaled), expected, atol=1e-6)
