"""Probes of frozen features: logistic regression and nearest neighbours, all choices made on validation data.

Features are ``n x d`` arrays, such as :mod:`~bridle_fairseq.inference.extractors` makes. Labels are one class a row
(``n``, numbers or strings), scored by accuracy, or any number of classes a row (``n x C`` of 0 and 1), scored by mAP:
the mean of the average precisions of the classes that occur among the scored rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from bridle_fairseq.nn.knn import Neighbours, nearest_neighbours, vote

INVERSE_REGULARISATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)
TEMPERATURES = (0.02, 0.07, 0.2)

Scorer = Callable[[np.ndarray], np.ndarray]  # standardised features n x d -> scores of the classes, n x C
Settings = dict[str, float]
# (standardised training features, targets n x C, several classes a row, settings) -> what each of the settings gives
Fits = Callable[[np.ndarray, np.ndarray, bool, Sequence[Settings]], Iterable[tuple[Settings, Scorer]]]


class Split(NamedTuple):
    """Features (n x d) or labels (n, or n x C) of the three parts of a labelled set."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


class ProbeResult(NamedTuple):
    """The score of the test part, and what was chosen on the validation part."""

    score: float
    interval: tuple[float, float] | None  # of the score, from resampled test rows
    valid_score: float
    candidate: Any
    settings: Settings
    of_candidates: dict[Any, float]  # the best validation score of each candidate


class _Trial(NamedTuple):
    key: tuple[float, float]  # validation score, and at a draw the likelihood
    candidate: Any
    settings: Settings
    scorer: Scorer


def linear_probe(
    candidates: Mapping[Any, Split],
    labels: Split,
    inverse_regularisations: Sequence[float] = INVERSE_REGULARISATIONS,
    **options: Any,
) -> ProbeResult:
    """Fit a logistic regression to each candidate's training features and test the one that validates best.

    Args:
        candidates: name (such as the encoder's layer) -> features; all have the rows of ``labels``.
        labels: see the module.
        inverse_regularisations: the values of scikit-learn's ``C`` to choose from.
        options: see :func:`_probe`.

    The validation score decides, at a draw the validation likelihood. The test part is looked at once, at the end.
    """
    return _probe(candidates, labels, _linear_fits, [{"C": value} for value in inverse_regularisations], **options)


def knn_probe(
    candidates: Mapping[Any, Split],
    labels: Split,
    neighbours: Sequence[int] = NEIGHBOURS,
    temperatures: Sequence[float] = TEMPERATURES,
    **options: Any,
) -> ProbeResult:
    """Classify by the nearest training rows (cosine of standardised features); test what validates best.

    Args:
        candidates: as in :func:`linear_probe`.
        labels: see the module.
        neighbours: numbers of neighbours to choose from; those above the number of training rows are left out.
        temperatures: to choose from, see :func:`bridle_fairseq.nn.knn.vote`.
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
    refit: bool = False,
    resamples: int = 0,
    seed: int = 0,
) -> ProbeResult:
    """Try all settings on all candidates, and test what validates best.

    Args:
        fits: the classifier.
        grid: settings of it to choose from.
        refit: before the test, fit what was chosen to the training and validation parts together.
        resamples: times that the test rows are drawn anew, with replacement, for a 95 % interval; 0: none.
        seed: of those draws.
    """
    targets = _targets(labels)
    multi = labels.train.ndim == 2
    best: _Trial | None = None
    of_candidates: dict[Any, float] = {}
    for name, features in candidates.items():
        scaled = _standardised(features.train, features)
        for settings, scorer in fits(scaled.train, targets.train, multi, grid):
            scores = scorer(scaled.valid)
            key = score_of(scores, targets.valid, multi), _likelihood(scores, targets.valid, multi)
            of_candidates[name] = max(of_candidates.get(name, 0.0), key[0])
            if best is None or key > best.key:
                best = _Trial(key, name, settings, scorer)
    assert best is not None
    chosen, scorer, by = candidates[best.candidate], best.scorer, candidates[best.candidate].train
    if refit:
        known = multi | targets.valid.any(1)  # nothing is learned from a row of a class that training does not have
        by = np.concatenate([chosen.train, chosen.valid[known]])
        both = np.concatenate([targets.train, targets.valid[known]])
        ((_, scorer),) = fits(_standardised(by, Split(by, by[:0], by[:0])).train, both, multi, [best.settings])
    scores = scorer(_standardised(by, chosen).test)
    score = score_of(scores, targets.test, multi)
    interval = bootstrap(scores, targets.test, multi, resamples, seed) if resamples else None
    return ProbeResult(score, interval, best.key[0], best.candidate, dict(best.settings), of_candidates)


def _targets(labels: Split) -> Split:
    """Labels as n x C of 0 and 1; a class that training does not have is none of them, and never told."""
    if labels.train.ndim == 2:
        return Split(*(part.astype(np.float32) for part in labels))
    classes = np.unique(labels.train)
    return Split(*((part[:, None] == classes).astype(np.float32) for part in labels))


def _standardised(by: np.ndarray, features: Split) -> Split:
    mean, deviation = by.mean(axis=0), np.maximum(by.std(axis=0), 1e-6)
    return Split(*((part - mean) / deviation for part in features))


def score_of(scores: np.ndarray, targets: np.ndarray, multi: bool) -> float:
    """Accuracy, or with several classes a row mAP, of scores n x C."""
    if not multi:
        return float(targets[np.arange(len(scores)), scores.argmax(1)].mean(dtype=np.float64))
    from sklearn.metrics import average_precision_score

    there = np.flatnonzero(targets.any(0))
    return float(np.mean([average_precision_score(targets[:, c], scores[:, c]) for c in there])) if len(there) else 0.0


def _likelihood(scores: np.ndarray, targets: np.ndarray, multi: bool) -> float:
    """Mean log likelihood of the classes there are; of a row without a known one, nothing."""
    log = np.log(np.clip(scores, 1e-12, 1.0))
    if multi:
        log = np.where(targets > 0, log, np.log(np.clip(1 - scores, 1e-12, 1.0)))
        return float(log.mean())
    known = targets.any(1)
    return float((log * targets)[known].sum(1).mean()) if known.any() else float("-inf")


def bootstrap(scores: np.ndarray, targets: np.ndarray, multi: bool, resamples: int, seed: int) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the score over as many rows drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(scores), size=len(scores)) for _ in range(resamples))
    values = [score_of(scores[rows], targets[rows], multi) for rows in drawn]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _linear_fits(
    features: np.ndarray, targets: np.ndarray, multi: bool, grid: Sequence[Settings]
) -> Iterator[tuple[Settings, Scorer]]:
    """Logistic regressions; one for each class where rows are not of exactly one."""
    basis = None
    if features.shape[1] > len(features):
        # The solution lies in the span of the rows: the same one, from as many features as there are rows.
        basis = np.linalg.qr(features.T)[0]
        features = features @ basis
    columns = list(targets.T > 0) if multi else [targets.argmax(1)]
    for settings in grid:
        fitted = [_logistic(features, column, settings["C"]) for column in columns]
        yield settings, _linear_scorer(fitted, basis, multi)


def _logistic(features: np.ndarray, labels: np.ndarray, strength: float) -> Any:
    """A fitted scikit-learn model; of labels that are all the same, which need none, that label."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if labels.min() == labels.max():
        return float(labels[0])
    # The products are small: a second thread waits more than it works, and made the fits many times slower.
    with warnings.catch_warnings(), threadpool_limits(1):
        # a fit that stops at the limit is as good a candidate as any: validation judges it
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


def _knn_fits(
    features: np.ndarray, targets: np.ndarray, multi: bool, grid: Sequence[Settings]
) -> Iterator[tuple[Settings, Scorer]]:
    """Votes of the nearest rows; for the same queries they are searched once for all settings."""
    bank, of_bank = torch.from_numpy(features).float(), torch.from_numpy(targets).float()
    most = int(max(settings["k"] for settings in grid))
    searched: list[tuple[np.ndarray, Neighbours]] = []

    def score(x: np.ndarray, settings: Settings) -> np.ndarray:
        if not searched or searched[-1][0] is not x:
            searched[:] = [(x, nearest_neighbours(bank, torch.from_numpy(x).float(), most))]
        return vote(searched[-1][1], of_bank, int(settings["k"]), settings["temperature"]).numpy()

    for settings in grid:
        yield settings, lambda x, settings=settings: score(x, settings)
