"""Ridge regression in closed form, against slow float64 solves."""

from __future__ import annotations

import numpy as np
import pytest

from bridle_fairseq.evaluation.ridge import REGULARIZATIONS, Ridge, ridge_accuracy

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


def test_accuracy_chooses_on_the_bank_alone() -> None:
    """Few rows and many features of noise: without regularization little is right; with much of it most is."""
    rng = np.random.default_rng(3)
    labels = np.arange(90) % 3
    features = rng.normal(size=(90, 60)) + 0.5 * rng.normal(size=(3, 60))[labels]
    features = features * np.logspace(-3, 3, 60) + 1000
    bank, queries = features[:60], features[60:]
    chosen = ridge_accuracy(bank, labels[:60], queries, labels[60:])
    each = [ridge_accuracy(bank, labels[:60], queries, labels[60:], [value]) for value in REGULARIZATIONS]
    assert min(each) < chosen and chosen in each and chosen > 0.8
    x, y = (bank - bank.mean(0)) / bank.std(0), np.eye(3)[labels[:60]]
    ridge = Ridge(x, y)
    right = [(ridge.leave_one_out(value).argmax(1) == labels[:60]).mean() for value in REGULARIZATIONS]
    assert chosen in [accuracy for accuracy, known in zip(each, right, strict=True) if known == max(right)]


def test_a_class_that_only_the_queries_have_is_an_error_of_the_probe() -> None:
    x, _ = problem(30, 5)
    labels = np.arange(30) % 3
    changed = np.where(np.arange(30) < 10, 7, labels)
    assert ridge_accuracy(x, labels, x, changed) <= 20 / 30
