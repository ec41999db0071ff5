"""Patch features of many clips: any number of patches a clip, one array for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


class PatchRows:
    """Rows of patches. A selection of rows shares the values, so it costs no memory.

    Args:
        values: all patches x D; may be memory-mapped.
        starts: n, the first patch of each row.
        counts: n, patches of each row; 0 if the clip could not be read.
    """

    def __init__(self, values: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> None:
        self.values, self.starts, self.counts = values, starts, counts

    @classmethod
    def of_counts(cls, values: np.ndarray, counts: np.ndarray) -> PatchRows:
        """Rows that lie one after the other."""
        return cls(values, np.cumsum(counts) - counts, counts)

    @property
    def width(self) -> int:
        """D."""
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: np.ndarray) -> PatchRows:
        """Some rows: their numbers, or a mask."""
        return PatchRows(self.values, self.starts[rows], self.counts[rows])

    def __iter__(self) -> Iterator[np.ndarray]:
        """N x D of each row."""
        return (self.values[a : a + n] for a, n in zip(self.starts.tolist(), self.counts.tolist(), strict=True))

    def padded(self, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some rows as B x N x D float32, 0 at padding, and the padding, B x N."""
        chosen = self[np.asarray(rows)]
        x = np.zeros((len(chosen), int(chosen.counts.max(initial=1)), self.width), np.float32)
        for row, patches in zip(x, chosen, strict=True):
            row[: len(patches)] = patches
        return x, np.arange(x.shape[1]) >= chosen.counts[:, None]
