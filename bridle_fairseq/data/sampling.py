"""Weighted sampling of class-imbalanced data sets."""

from __future__ import annotations

import numpy as np

from bridle_fairseq.data.manifests.labels import Labels
from bridle_fairseq.utils.errors import InputError


def clip_weights(labels: Labels) -> np.ndarray:
    """Sampling weight of each row: the sum of 1 / (clips of the class) over its classes, float64; 0 without a class.

    Source: the sampler of AST (arXiv 2104.01778) and Audio-MAE (arXiv 2207.06405) for AudioSet.
    """
    rows, numbers = labels.pairs()
    counts = np.bincount(numbers, minlength=len(labels.classes))
    return np.bincount(rows, 1 / counts[numbers], minlength=len(labels))


class WeightedDraw:
    """Draws rows with replacement and with given weights. The draw depends on seed and epoch only.

    Args:
        weights: weight of each row, 0 or more.
        size: rows per epoch.
        seed: seed of the draws.

    Raises:
        InputError: all weights are 0.
    """

    def __init__(self, weights: np.ndarray, size: int, seed: int) -> None:
        if not weights.sum() > 0:
            raise InputError(
                "task.weighted_sampling is true and no clip has a class; expected labels in the training split"
            )
        self.edges = np.cumsum(weights / weights.sum())
        self.size, self.seed = size, seed

    def rows(self, epoch: int) -> np.ndarray:
        """The rows of an epoch, in random order."""
        draws = np.random.default_rng((self.seed, epoch)).random(self.size) * self.edges[-1]
        return np.searchsorted(self.edges, draws, side="right")
