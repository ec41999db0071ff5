"""The nearest clips of an index: by features, or by how often each code occurs; faiss where it is installed.

Similarity is the cosine. Of features, each value is first taken from the index's mean in units of its deviation
(:class:`bridle_fairseq.nn.knn.Scaling`): without it all clips are alike. Of codes, it is that of the roots of their
frequencies in each level: the mean over levels of the Bhattacharyya coefficient, 1 for clips with the same histograms.

Whatever searches finds candidates, some more than are wanted; their similarities are then computed once more, in
float64, and equal ones are ordered by row. So faiss and the exact search give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.artifacts.features import PATCHES, Features
from bridle_fairseq.utils.errors import InputError

ROWS_AT_ONCE = 16384
MORE_CANDIDATES = 32


class Neighbour(NamedTuple):
    """A row of an index."""

    row: int
    similarity: float


class Bank:
    """The vectors of an index, read as they are needed.

    Attributes:
        prefix: path of its files.
        info: what they say of themselves.
        rows: how many.
        width: values of a vector.
    """

    prefix: str
    info: Any
    rows: int
    width: int

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of these rows, n x width float64; NaN where a clip could not be read."""
        raise NotImplementedError

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Raw vectors as they are compared."""
        return raw

    def unit(self, raw: np.ndarray) -> np.ndarray:
        """Raw vectors as they are compared, of length 1; 0 where there is none."""
        made = np.nan_to_num(self.prepare(raw))
        return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)

    def blocks(self) -> Any:
        """(first row, unit vectors as float32) of all rows, some at a time."""
        for start in range(0, self.rows, ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, self.rows))
            yield start, self.unit(self.raw(rows)).astype(np.float32)


class FeatureBank(Bank):
    """An array of pooled features.

    Args:
        features: of a corpus.
        name: of the array; None: the first that is pooled.

    Raises:
        InputError: no such array, or no pooled one.
    """

    def __init__(self, features: Features, name: str | None = None) -> None:
        pooled = [array for array in features.info.arrays if array.pooling != PATCHES]
        chosen = [array for array in pooled if name in (None, array.name)]
        if not chosen:
            names = ", ".join(array.name for array in pooled) or "none, of which bridle features makes some"
            raise InputError(f"{features.prefix}.json: no pooled features {name or ''}; there are {names}")
        self.prefix, self.info, self.array = features.prefix, features.info, chosen[0]
        self.values = features[self.array.name]
        self.rows, self.width = self.values.shape
        self.mean, self.deviation = self._scaling()

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`Bank`."""
        return np.asarray(self.values[rows], np.float64)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Scaled."""
        return (raw - self.mean) / self.deviation

    def _scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the rows that there are, in two passes."""
        count, total, squares = 0, np.zeros(self.width), np.zeros(self.width)
        for part in self._parts():
            count, total = count + len(part), total + part.sum(0)
        mean = total / max(count, 1)
        for part in self._parts():
            squares += ((part - mean) ** 2).sum(0)
        return mean, np.maximum(np.sqrt(squares / max(count, 1)), 1e-6)

    def _parts(self) -> Any:
        for start in range(0, self.rows, ROWS_AT_ONCE):
            part = self.raw(np.arange(start, min(start + ROWS_AT_ONCE, self.rows)))
            yield part[~np.isnan(part).any(1)]


class CodeBank(Bank):
    """Histograms of codes, K x C values.

    Args:
        codes: of a corpus.
    """

    def __init__(self, codes: CachedCodes) -> None:
        self.prefix, self.info, self.codes = codes.prefix, codes.info, codes
        self.rows, self.width = len(codes), codes.info.num_codebooks * codes.info.codebook_size

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`Bank`."""
        return np.stack([self.histogram(self.codes.item(int(row))) for row in rows])

    def histogram(self, codes: np.ndarray) -> np.ndarray:
        """Roots of the frequencies of a clip's codes (n x K), NaN where it has none."""
        if not len(codes):
            return np.full(self.width, np.nan)
        numbered = codes + np.arange(self.info.num_codebooks) * self.info.codebook_size
        return np.sqrt(np.bincount(numbered.reshape(-1), minlength=self.width) / len(codes))


def load_faiss() -> Any:
    """The module ``faiss``, None where it is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def candidates_exactly(bank: Bank, queries: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` likeliest rows of each query (Q x width float32, length 1), by comparing all: Q x count."""
    best = np.full((len(queries), 0), -np.inf, np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for start, block in bank.blocks():
        found = queries @ block.T
        best = np.concatenate([best, found], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + len(block)), found.shape)], axis=1)
        if best.shape[1] > count:
            kept = np.argpartition(-best, count - 1, axis=1)[:, :count]
            best, rows = np.take_along_axis(best, kept, 1), np.take_along_axis(rows, kept, 1)
    return rows


def candidates_by_faiss(bank: Bank, queries: np.ndarray, count: int) -> np.ndarray:
    """The same by faiss, which holds all vectors in memory."""
    index = load_faiss().IndexFlatIP(bank.width)
    for _, block in bank.blocks():
        index.add(block)
    return index.search(queries, min(count, bank.rows))[1]


def nearest(
    bank: Bank,
    queries: np.ndarray,
    k: int,
    own: Sequence[int | None],
    find: Callable[[Bank, np.ndarray, int], np.ndarray] | None = None,
) -> list[list[Neighbour]]:
    """The ``k`` nearest rows of each query (fewer where there are fewer), the nearest first.

    Args:
        bank: the index.
        queries: Q x width, raw.
        k: neighbours.
        own: the row that a query is itself, which is left out; None for a query from elsewhere.
        find: what finds candidates; faiss where it is installed.
    """
    if find is None:
        find = candidates_exactly if load_faiss() is None else candidates_by_faiss
    unit = bank.unit(queries)
    found = find(bank, unit.astype(np.float32), min(k + MORE_CANDIDATES, bank.rows))
    return [_ordered(bank, query, rows, itself, k) for query, rows, itself in zip(unit, found, own, strict=True)]


def _ordered(bank: Bank, query: np.ndarray, rows: np.ndarray, itself: int | None, k: int) -> list[Neighbour]:
    rows = np.array(sorted(set(rows.tolist()) - {itself, -1}), np.int64)
    raw = bank.raw(rows) if len(rows) else np.zeros((0, bank.width))
    there = ~np.isnan(raw).any(1)
    similarity = bank.unit(raw[there]) @ query
    best = np.argsort(-similarity, kind="stable")[:k]
    return [Neighbour(int(rows[there][place]), float(similarity[place])) for place in best]
