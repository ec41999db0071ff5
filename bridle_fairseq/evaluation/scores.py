"""The score of classifiers on a set of clips, accuracy or mAP, and its interval by bootstrap.

NumPy only: the light install has no scikit-learn.
"""

from __future__ import annotations

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
