"""Probes of frozen features: logistic regression, ridge regression and nearest neighbours.

All choices are made on validation data. The exact linear probe is logistic regression, which needs scikit-learn. The
fast one is ridge regression: a closed form, in seconds for thousands of rows and features.

Features are n x d arrays. Labels are one class per row (n, numbers or strings), scored by accuracy, or any number of
classes per row (n x C of 0 and 1), scored by mAP: the average precision averaged over the classes that occur among the
scored rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.evaluation.attentive import LEARNING_RATES, WEIGHT_DECAYS, attentive
from bridle_fairseq.evaluation.classifiers import (
    Fit,
    Scorer,
    Settings,
    logistic_regression,
    nearest_rows,
    ridge_regression,
)
from bridle_fairseq.evaluation.ridge import REGULARIZATIONS
from bridle_fairseq.evaluation.scores import Outcome, bootstrap, score_of

INVERSE_REGULARIZATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
INVERSE_LIMITS = (1e-7, 1e5)  # beyond them, no solution differs from that of the limit
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)
TEMPERATURES = (0.02, 0.07, 0.2)

# (class scores n x C, targets n x C, multi-label) -> what decides between equal scores; larger is better
TieBreaker = Callable[[np.ndarray, np.ndarray, bool], float]
Fits = Callable[[np.ndarray, np.ndarray, bool, Sequence[Settings]], Fit]  # see the module classifiers
# (settings at an end of a grid, those beside them) -> the next settings beyond the end, or None
Further = Callable[[Settings, Settings], Settings | None]


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
    outcome: Outcome  # of the test split
    at_end: bool = False  # the validation score still rose at the end of the range of the regularization


Key = tuple[float, float]  # validation score; at ties, validation likelihood or negative error


class _Trial(NamedTuple):
    key: Key
    candidate: Any
    settings: Settings
    scorer: Scorer


class _Tried(NamedTuple):
    settings: Settings
    score: float  # on validation


def linear_probe(
    candidates: Mapping[Any, Split],
    labels: Split,
    inverse_regularizations: Sequence[float] = INVERSE_REGULARIZATIONS,
    **options: Any,
) -> ProbeResult:
    """Fit a logistic regression to each candidate's training features, and test the one that validates best.

    The validation score decides; at ties, the validation likelihood. The test split is used once, at the end. While the
    validation score is best at an end of the range, the range is extended, within :data:`INVERSE_LIMITS`.

    Args:
        candidates: name (such as the layer of the encoder) -> features of the rows of ``labels``.
        labels: see the module.
        inverse_regularizations: values of scikit-learn's ``C`` to choose from.
        options: see :func:`_probe`.
    """
    grid = [{"C": value} for value in sorted(inverse_regularizations)]
    return _probe(candidates, labels, logistic_regression, grid, further=_further_strength, **options)


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
    grid = [{"regularization": value} for value in sorted(regularizations)]
    return _probe(candidates, labels, ridge_regression, grid, _negative_error, _nothing_further, **options)


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
    return _probe(candidates, labels, nearest_rows, grid, **options)


def attentive_probe(
    candidates: Mapping[Any, Any],
    labels: Split,
    learning_rates: Sequence[float] = LEARNING_RATES,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    device: str = "cpu",
    seed: int = 0,
    **options: Any,
) -> ProbeResult:
    """Train an attentive probe on each candidate's patches, and test the one that validates best.

    Args:
        candidates: as in :func:`linear_probe`, but splits of :class:`.patch_rows.PatchRows`.
        labels: see the module.
        learning_rates, weight_decays: of AdamW, to choose from.
        device: where it is trained.
        seed: of the training, and of the resamples.
        options: see :func:`_probe`; not ``refit``.
    """
    grid = [{"lr": rate, "weight_decay": decay} for rate in learning_rates for decay in weight_decays]
    fits: Any = partial(attentive, seed, device)
    return _probe(candidates, labels, fits, grid, scale=lambda by, features: features, seed=seed, **options)


def _probe(
    candidates: Mapping[Any, Split],
    labels: Split,
    fits: Fits,
    grid: Sequence[Settings],
    tie_breaker: TieBreaker | None = None,
    further: Further | None = None,
    scale: Callable[[np.ndarray, Split], Split] | None = None,
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
        further: continues a sorted grid; None: the settings have no order.
        scale: (training features, features) -> the features as the classifier takes them; by default standardized.
        refit: before the test, fit the chosen classifier to the training and validation splits together.
        resamples: bootstrap resamples of the test rows, for a 95 % interval; 0: no interval.
        seed: seed of the resamples.
    """
    tie_breaker, scale = tie_breaker or _likelihood, scale or _standardized
    targets = _targets(labels)
    multi = labels.train.ndim == 2
    best: _Trial | None = None
    tried: dict[Any, list[_Tried]] = {}

    def measure(name: Any, settings: Settings, scorer: Scorer, features: np.ndarray) -> _Tried:
        nonlocal best
        scores = scorer(features)
        key = score_of(scores, targets.valid, multi), tie_breaker(scores, targets.valid, multi)
        if best is None or key > best.key:
            best = _Trial(key, name, settings, scorer)
        return _Tried(settings, key[0])

    for name, features in candidates.items():
        scaled = scale(features.train, features)
        fit = fits(scaled.train, targets.train, multi, grid)
        tried[name] = _search(lambda settings: measure(name, settings, fit(settings), scaled.valid), grid, further)  # noqa: B023
    assert best is not None
    chosen, scorer, by = candidates[best.candidate], best.scorer, candidates[best.candidate].train
    if refit:
        known = multi | targets.valid.any(1)  # not rows of a class that the training split does not have
        by = np.concatenate([chosen.train, chosen.valid[known]])
        both = np.concatenate([targets.train, targets.valid[known]])
        fit = fits(scale(by, Split(by, by[:0], by[:0])).train, both, multi, [best.settings])
        scorer = fit(best.settings)
    scores = scorer(scale(by, chosen).test)
    score = score_of(scores, targets.test, multi)
    interval = bootstrap(scores, targets.test, multi, resamples, seed) if resamples else None
    return ProbeResult(
        score=score,
        interval=interval,
        valid_score=best.key[0],
        candidate=best.candidate,
        settings=dict(best.settings),
        candidate_scores={name: max(trial.score for trial in trials) for name, trials in tried.items()},
        outcome=Outcome(scores, targets.test),
        at_end=further is not None and _rises_at_end(tried[best.candidate], best.settings),
    )


def _search(measure: Callable[[Settings], _Tried], grid: Sequence[Settings], further: Further | None) -> list[_Tried]:
    """Measure all settings of a grid, and those beyond its ends while the score rises there; in order of the grid."""
    tried = [measure(settings) for settings in grid]
    if further is None:
        return tried
    for end, inner in ((-1, -2), (0, 1)):
        while len(tried) > 1 and tried[end].score > tried[inner].score:
            settings = further(tried[end].settings, tried[inner].settings)
            if settings is None:
                break
            tried.insert(len(tried) if end else 0, measure(settings))
    return tried


def _rises_at_end(tried: Sequence[_Tried], chosen: Settings) -> bool:
    ends = [(tried[0], tried[1]), (tried[-1], tried[-2])] if len(tried) > 1 else []
    return any(end.settings == chosen and end.score > inner.score for end, inner in ends)


def _nothing_further(end: Settings, inner: Settings) -> None:
    """The grid is as wide as it can be."""


def _further_strength(end: Settings, inner: Settings) -> Settings | None:
    """The next value of C, as far from the end as the end is from the value beside it."""
    value = float(f"{end['C'] ** 2 / inner['C']:.6g}")
    return {"C": value} if INVERSE_LIMITS[0] <= value <= INVERSE_LIMITS[1] else None


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
