"""Probes of frozen features: logistic regression, ridge regression and nearest neighbours.

All choices are made on validation data. The exact linear probe is logistic regression, which needs scikit-learn. The
fast one is ridge regression: a closed form, in seconds for thousands of rows and features.

Features are n x d arrays. Labels are one class per row (n, numbers or strings), scored by accuracy, or any number of
classes per row (n x C of 0 and 1), scored by mAP: the average precision averaged over the classes that occur among the
scored rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from bridle_fairseq.evaluation.ridge import REGULARIZATIONS, Ridge
from bridle_fairseq.evaluation.scores import bootstrap, score_of
from bridle_fairseq.nn.knn import Neighbours, nearest_neighbours, vote

INVERSE_REGULARIZATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)
TEMPERATURES = (0.02, 0.07, 0.2)

Scorer = Callable[[np.ndarray], np.ndarray]  # standardized features n x d -> class scores n x C
Settings = dict[str, float]
# (class scores n x C, targets n x C, multi-label) -> what decides between equal scores; larger is better
TieBreaker = Callable[[np.ndarray, np.ndarray, bool], float]
# (standardized training features, targets n x C, multi-label, grid) -> the fitted classifier of each settings
Fits = Callable[[np.ndarray, np.ndarray, bool, Sequence[Settings]], Iterable[tuple[Settings, Scorer]]]


class Split(NamedTuple):
    """Features (n x d) or labels (n, or n x C) of three splits."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


class ProbeResult(NamedTuple):
    """The score on the test split, and what was chosen on the validation split."""

    score: float
    interval: tuple[float, float] | None  # of the score, by bootstrap
    valid_score: float
    candidate: Any
    settings: Settings
    candidate_scores: dict[Any, float]  # the best validation score of each candidate


class _Trial(NamedTuple):
    key: tuple[float, float]  # validation score; at ties, validation likelihood or negative error
    candidate: Any
    settings: Settings
    scorer: Scorer


def linear_probe(
    candidates: Mapping[Any, Split],
    labels: Split,
    inverse_regularizations: Sequence[float] = INVERSE_REGULARIZATIONS,
    **options: Any,
) -> ProbeResult:
    """Fit a logistic regression to each candidate's training features, and test the one that validates best.

    The validation score decides; at ties, the validation likelihood. The test split is used once, at the end.

    Args:
        candidates: name (such as the layer of the encoder) -> features of the rows of ``labels``.
        labels: see the module.
        inverse_regularizations: values of scikit-learn's ``C`` to choose from.
        options: see :func:`_probe`.
    """
    return _probe(candidates, labels, _linear_fits, [{"C": value} for value in inverse_regularizations], **options)


def ridge_probe(
    candidates: Mapping[Any, Split],
    labels: Split,
    regularizations: Sequence[float] = REGULARIZATIONS,
    **options: Any,
) -> ProbeResult:
    """Fit a ridge regression of the classes to each candidate's training features, and test what validates best.

    The validation score decides; at ties, the smaller squared error.

    Args:
        candidates: as in :func:`linear_probe`.
        labels: see the module.
        regularizations: to choose from, relative to the mean eigenvalue; see :class:`.ridge.Ridge`.
        options: see :func:`_probe`.
    """
    grid = [{"regularization": value} for value in regularizations]
    return _probe(candidates, labels, _ridge_fits, grid, _negative_error, **options)


def knn_probe(
    candidates: Mapping[Any, Split],
    labels: Split,
    neighbours: Sequence[int] = NEIGHBOURS,
    temperatures: Sequence[float] = TEMPERATURES,
    **options: Any,
) -> ProbeResult:
    """Classify by the nearest training rows (cosine of standardized features), and test what validates best.

    Args:
        candidates: as in :func:`linear_probe`.
        labels: see the module.
        neighbours: numbers of neighbours to choose from; those above the number of training rows are ignored.
        temperatures: to choose from; see :func:`bridle_fairseq.nn.knn.vote`.
        options: see :func:`_probe`.
    """
    counts = [k for k in neighbours if k <= len(labels.train)] or [len(labels.train)]
    grid = [{"k": k, "temperature": t} for k in counts for t in (temperatures if k > 1 else temperatures[:1])]
    return _probe(candidates, labels, _knn_fits, grid, **options)


def _probe(
    candidates: Mapping[Any, Split],
    labels: Split,
    fits: Fits,
    grid: Sequence[Settings],
    tie_breaker: TieBreaker | None = None,
    refit: bool = False,
    resamples: int = 0,
    seed: int = 0,
) -> ProbeResult:
    """Try all settings on all candidates, and test what validates best.

    Args:
        candidates, labels: see :func:`linear_probe`.
        fits: fits the classifier.
        grid: settings of the classifier to choose from.
        tie_breaker: decides between equal validation scores; by default the likelihood, of scores that are
            probabilities.
        refit: before the test, fit the chosen classifier to the training and validation splits together.
        resamples: bootstrap resamples of the test rows, for a 95 % interval; 0: no interval.
        seed: seed of the resamples.
    """
    tie_breaker = tie_breaker or _likelihood
    targets = _targets(labels)
    multi = labels.train.ndim == 2
    best: _Trial | None = None
    candidate_scores: dict[Any, float] = {}
    for name, features in candidates.items():
        scaled = _standardized(features.train, features)
        for settings, scorer in fits(scaled.train, targets.train, multi, grid):
            scores = scorer(scaled.valid)
            key = score_of(scores, targets.valid, multi), tie_breaker(scores, targets.valid, multi)
            candidate_scores[name] = max(candidate_scores.get(name, 0.0), key[0])
            if best is None or key > best.key:
                best = _Trial(key, name, settings, scorer)
    assert best is not None
    chosen, scorer, by = candidates[best.candidate], best.scorer, candidates[best.candidate].train
    if refit:
        known = multi | targets.valid.any(1)  # not rows of a class that the training split does not have
        by = np.concatenate([chosen.train, chosen.valid[known]])
        both = np.concatenate([targets.train, targets.valid[known]])
        ((_, scorer),) = fits(_standardized(by, Split(by, by[:0], by[:0])).train, both, multi, [best.settings])
    scores = scorer(_standardized(by, chosen).test)
    score = score_of(scores, targets.test, multi)
    interval = bootstrap(scores, targets.test, multi, resamples, seed) if resamples else None
    return ProbeResult(score, interval, best.key[0], best.candidate, dict(best.settings), candidate_scores)


def _targets(labels: Split) -> Split:
    """Labels as n x C of 0 and 1. A class that the training split does not have is no column: it is always an error."""
    if labels.train.ndim == 2:
        return Split(*(part.astype(np.float32) for part in labels))
    classes = np.unique(labels.train)
    return Split(*((part[:, None] == classes).astype(np.float32) for part in labels))


def _standardized(by: np.ndarray, features: Split) -> Split:
    mean, deviation = by.mean(axis=0), np.maximum(by.std(axis=0), 1e-6)
    return Split(*((part - mean) / deviation for part in features))


def _likelihood(scores: np.ndarray, targets: np.ndarray, multi: bool) -> float:
    """Mean log likelihood of the true classes; rows of unknown classes are ignored."""
    log = np.log(np.clip(scores, 1e-12, 1.0))
    if multi:
        log = np.where(targets > 0, log, np.log(np.clip(1 - scores, 1e-12, 1.0)))
        return float(log.mean())
    known = targets.any(1)
    return float((log * targets)[known].sum(1).mean()) if known.any() else float("-inf")


def _negative_error(scores: np.ndarray, targets: np.ndarray, multi: bool) -> float:
    return -float(np.square(scores - targets).mean())


def _linear_fits(
    features: np.ndarray, targets: np.ndarray, multi: bool, grid: Sequence[Settings]
) -> Iterator[tuple[Settings, Scorer]]:
    """A logistic regression for each settings; multi-label: one per class."""
    basis = None
    if features.shape[1] > len(features):
        # The solution lies in the span of the rows, so as many features as there are rows give the same one.
        basis = np.linalg.qr(features.T)[0]
        features = features @ basis
    columns = list(targets.T > 0) if multi else [targets.argmax(1)]
    for settings in grid:
        fitted = [_logistic(features, column, settings["C"]) for column in columns]
        yield settings, _linear_scorer(fitted, basis, multi)


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


def _ridge_fits(
    features: np.ndarray, targets: np.ndarray, multi: bool, grid: Sequence[Settings]
) -> Iterator[tuple[Settings, Scorer]]:
    """A ridge regression for each settings, from one eigendecomposition."""
    ridge = Ridge(features, targets)
    for settings in grid:
        yield settings, ridge.fit(settings["regularization"])


def _knn_fits(
    features: np.ndarray, targets: np.ndarray, multi: bool, grid: Sequence[Settings]
) -> Iterator[tuple[Settings, Scorer]]:
    """Votes of the nearest rows. The search is done once for all settings if the queries are the same."""
    bank, of_bank = torch.from_numpy(features).float(), torch.from_numpy(targets).float()
    most = int(max(settings["k"] for settings in grid))
    searched: list[tuple[np.ndarray, Neighbours]] = []

    def score(x: np.ndarray, settings: Settings) -> np.ndarray:
        if not searched or searched[-1][0] is not x:
            searched[:] = [(x, nearest_neighbours(bank, torch.from_numpy(x).float(), most))]
        return vote(searched[-1][1], of_bank, int(settings["k"]), settings["temperature"]).numpy()

    for settings in grid:
        yield settings, partial(score, settings=settings)
