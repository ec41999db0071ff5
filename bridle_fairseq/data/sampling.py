"""Which rows an epoch has, and in which order: all of them, shuffled within buckets of length, or a weighted draw.

fairseq makes batches of slots. Slots and their batches are the same in all epochs, so that workers and batches are
reused, and each epoch puts other rows into them. The rows of an epoch follow from seed and epoch only, so a run that
resumes within an epoch has the same batches.
"""

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


def length_buckets(sizes: np.ndarray, num_buckets: int) -> np.ndarray:
    """Bucket of each length, less for longer: ``num_buckets`` quantiles, or fewer where these are equal."""
    edges = np.unique(np.quantile(sizes, np.linspace(0, 1, num_buckets + 1)[1:-1]))
    return len(edges) - np.searchsorted(edges, sizes, side="left")


class BucketShuffle:
    """Every row once per epoch. Slots keep their bucket of length, and each epoch shuffles the rows of a bucket anew.

    Args:
        rows: the rows in their slots in the first epoch, bucket after bucket.
        sizes: lengths of these rows.
        num_buckets: number of buckets, see :func:`length_buckets`.
        seed: seed of the shuffles.

    Attributes:
        sizes: of each slot, the length of the longest row of its bucket.
    """

    def __init__(self, rows: np.ndarray, sizes: np.ndarray, num_buckets: int, seed: int) -> None:
        self.first = rows.astype(np.int32)  # a copy per epoch in every worker: half the memory of int64
        self.seed = seed
        self._kept: int | None = None
        self._starts = np.flatnonzero(np.diff(length_buckets(sizes, num_buckets), prepend=-1))
        counts = np.diff(self._starts, append=len(rows))
        self.sizes = np.repeat(np.maximum.reduceat(sizes, self._starts), counts)

    def rows(self, epoch: int) -> np.ndarray:
        """The row of each slot in an epoch, int32; the first epoch, 1, has the given order."""
        if epoch == 1:
            return self.first
        rows, random = self.first.copy(), np.random.default_rng((self.seed, epoch))
        for bucket in np.split(rows, self._starts[1:]):  # views
            random.shuffle(bucket)
        if self._kept is not None:
            row = self.first[self._kept]
            rows[rows == row], rows[self._kept] = rows[self._kept], row
        return rows

    def keep(self, slot: int) -> None:
        """Leave the row of this slot in its place in all epochs."""
        self._kept = slot


class WeightedDraw:
    """Draws rows with replacement and with given weights, ordered by buckets of length.

    Args:
        weights: weight of each row, 0 or more.
        size: rows per epoch.
        seed: seed of the draws.
        sizes: length of each row.
        num_buckets: number of buckets, see :func:`length_buckets`.

    Attributes:
        sizes: of each slot, the length of the longest row, as any row can be in any slot.

    Raises:
        InputError: all weights are 0.
    """

    def __init__(self, weights: np.ndarray, size: int, seed: int, sizes: np.ndarray, num_buckets: int) -> None:
        if not weights.sum() > 0:
            raise InputError(
                "task.weighted_sampling is true and no clip has a class; expected labels in the training split"
            )
        self.edges = np.cumsum(weights / weights.sum())
        self.seed, self.num_buckets, self.row_sizes = seed, num_buckets, sizes
        self.sizes = np.full(size, sizes.max())

    def rows(self, epoch: int) -> np.ndarray:
        """The row of each slot in an epoch."""
        draws = np.random.default_rng((self.seed, epoch)).random(len(self.sizes)) * self.edges[-1]
        rows = np.searchsorted(self.edges, draws, side="right")
        return rows[np.argsort(length_buckets(self.row_sizes[rows], self.num_buckets), kind="stable")]
