"""Weighted sampling of unbalanced sets: which clips an epoch has when rare classes are to come as often as others."""

from __future__ import annotations

import numpy as np

from bridle_fairseq.data.manifests.labels import Labels
from bridle_fairseq.utils.errors import InputError


def clip_weights(labels: Labels) -> np.ndarray:
    """A weight for each row: the sum over its classes of 1 / (clips of the class), float64; 0 for one without a class.

    Source: the sampler with which AST (arXiv 2104.01778) and Audio-MAE (arXiv 2207.06405) train on AudioSet.
    """
    rows, numbers = labels.pairs()
    counts = np.bincount(numbers, minlength=len(labels.classes))
    return np.bincount(rows, 1 / counts[numbers], minlength=len(labels))


class WeightedDraw:
    """Draws rows with replacement, as often as their weights say; the draw follows from seed and epoch alone.

    Args:
        weights: one of each row, 0 or more.
        size: rows of an epoch.
        seed: of the draws.

    Raises:
        InputError: no row has a weight.
    """

    def __init__(self, weights: np.ndarray, size: int, seed: int) -> None:
        if not weights.sum() > 0:
            raise InputError(
                "task.weighted_sampling is true and no clip has a class; expected labels in the training split"
            )
        self.edges = np.cumsum(weights / weights.sum())
        self.size, self.seed = size, seed

    def rows(self, epoch: int) -> np.ndarray:
        """The rows of an epoch in random order."""
        places = np.random.default_rng((self.seed, epoch)).random(self.size) * self.edges[-1]
        return np.searchsorted(self.edges, places, side="right")
