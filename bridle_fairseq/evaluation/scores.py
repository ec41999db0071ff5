"""The score of a classifier on a set of clips, accuracy or mAP; intervals of it, and of the difference of two.

NumPy only: the light install has no scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


def score_of(scores: np.ndarray, targets: np.ndarray, multi: bool) -> float:
    """Accuracy (multi-label: mAP) of scores n x C."""
    if not multi:
        return float(targets[np.arange(len(scores)), scores.argmax(1)].mean(dtype=np.float64))
    present = np.flatnonzero(targets.any(0))
    if not len(present):
        return 0.0
    return float(np.mean([average_precision(targets[:, c], scores[:, c]) for c in present]))


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Precision at each distinct score, weighted by the recall that is gained there; equals scikit-learn's.

    Args:
        truth: n of 0 and 1, of which one is 1 at least.
        scores: n.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    truth, scores = truth[order], scores[order]
    last = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]  # of each group of equal scores
    hits = np.cumsum(truth, dtype=np.float64)[last]
    recall, precision = hits / hits[-1], hits / (last + 1)
    # from the lowest score to the highest, as scikit-learn sums: equal to the last bit
    return float(-np.sum(np.diff(recall[::-1], append=0.0) * precision[::-1]))


def bootstrap(scores: np.ndarray, targets: np.ndarray, multi: bool, resamples: int, seed: int) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the score over bootstrap resamples of the rows."""
    rng = np.random.default_rng(seed)
    samples = (rng.integers(len(scores), size=len(scores)) for _ in range(resamples))
    values = [score_of(scores[rows], targets[rows], multi) for rows in samples]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


class Outcome(NamedTuple):
    """What a classifier said of the clips that tested it."""

    scores: np.ndarray  # n x C
    targets: np.ndarray  # n x C of 0 and 1


class Difference(NamedTuple):
    """One score minus another, with a 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} (95 % interval {self.low:+.3f} to {self.high:+.3f})"


def paired_difference(
    first: Sequence[Outcome],
    second: Sequence[Outcome],
    multi: bool,
    resamples: int,
    seed: int,
    weights: Sequence[float] | None = None,
) -> Difference:
    """Score of the first minus that of the second on the same clips, by bootstrap over the clips.

    Each resample is the same for both, so what makes a clip easy or hard for both drops out. Clips are resampled within
    a test set, and the scores of several test sets, such as folds, are averaged.

    Args:
        first, second: for each test set, the outcome of its clips, in one order.
        multi: whether a clip may have several classes: the score is mAP, not accuracy.
        resamples: of the clips.
        seed: of the resamples.
        weights: of the test sets; equal by default.
    """
    rng = np.random.default_rng(seed)
    values = []
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.targets, other.targets)
        (a, b), count = (_score_of_rows(outcome, multi) for outcome in (one, other)), len(one.targets)
        samples = [np.arange(count), *(rng.integers(count, size=count) for _ in range(resamples))]
        values.append([a(rows) - b(rows) for rows in samples])
    value, *resampled = np.average(values, axis=0, weights=weights)  # test sets x (1 + resamples) -> 1 + resamples
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Difference(float(value), float(low), float(high))


def _score_of_rows(outcome: Outcome, multi: bool) -> Callable[[np.ndarray], float]:
    scores, targets = outcome
    if multi:
        return lambda rows: score_of(scores[rows], targets[rows], True)
    right = targets[np.arange(len(scores)), scores.argmax(1)]
    return lambda rows: float(right[rows].mean(dtype=np.float64))
