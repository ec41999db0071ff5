"""The classifiers of probes: logistic regression, ridge regression, nearest rows.

Each is a function of standardized training features (n x d), targets (n x C of 0 and 1), whether a row may have several
classes, and the grid of settings that may be asked for. It returns what fits the classifier of given settings; work
that all settings share is done once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from bridle_fairseq.evaluation.ridge import Ridge
from bridle_fairseq.nn.knn import Neighbours, nearest_neighbours, vote

Settings = dict[str, float]
Scorer = Callable[[np.ndarray], np.ndarray]  # standardized features n x d -> class scores n x C
Fit = Callable[[Settings], Scorer]


def logistic_regression(features: np.ndarray, targets: np.ndarray, multi: bool, grid: Sequence[Settings]) -> Fit:
    """Logistic regression with scikit-learn's ``C``; multi-label: one for each class."""
    basis = None
    if features.shape[1] > len(features):
        # The solution lies in the span of the rows, so as many features as there are rows give the same one.
        basis = np.linalg.qr(features.T)[0]
        features = features @ basis
    columns = list(targets.T > 0) if multi else [targets.argmax(1)]

    def fit(settings: Settings) -> Scorer:
        return _linear_scorer([_logistic(features, column, settings["C"]) for column in columns], basis, multi)

    return fit


def _logistic(features: np.ndarray, labels: np.ndarray, strength: float) -> Any:
    """A fitted scikit-learn model; if all labels are equal, that label."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if labels.min() == labels.max():
        return float(labels[0])
    # The matrix products are small: with a second thread the fits are many times slower.
    with warnings.catch_warnings(), threadpool_limits(1):
        # a fit that stops at max_iter is a valid candidate: the validation score decides
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(features, labels)


def _linear_scorer(fitted: Sequence[Any], basis: np.ndarray | None, multi: bool) -> Scorer:
    def probabilities(model: Any, x: np.ndarray) -> np.ndarray:
        if isinstance(model, float):
            return np.full((len(x), 1), model if multi else 1.0)
        return model.predict_proba(x)[:, 1:] if multi else model.predict_proba(x)

    def score(x: np.ndarray) -> np.ndarray:
        inner = x if basis is None else x @ basis
        return np.concatenate([probabilities(model, inner) for model in fitted], axis=1)

    return score


def ridge_regression(features: np.ndarray, targets: np.ndarray, multi: bool, grid: Sequence[Settings]) -> Fit:
    """Ridge regression of the classes, from one eigendecomposition."""
    ridge = Ridge(features, targets)
    return lambda settings: ridge.fit(settings["regularization"])


def nearest_rows(features: np.ndarray, targets: np.ndarray, multi: bool, grid: Sequence[Settings]) -> Fit:
    """Votes of the nearest rows. The search is done once for all settings if the queries are the same."""
    bank, of_bank = torch.from_numpy(features).float(), torch.from_numpy(targets).float()
    most = int(max(settings["k"] for settings in grid))
    searched: list[tuple[np.ndarray, Neighbours]] = []

    def score(x: np.ndarray, settings: Settings) -> np.ndarray:
        if not searched or searched[-1][0] is not x:
            searched[:] = [(x, nearest_neighbours(bank, torch.from_numpy(x).float(), most))]
        return vote(searched[-1][1], of_bank, int(settings["k"]), settings["temperature"]).numpy()

    return lambda settings: partial(score, settings=settings)
