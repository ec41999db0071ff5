"""The nearest clips of an index: by features, or by code histograms; with faiss if it is installed.

Similarity is the cosine. Features are first standardized by the mean and deviation of the index
(:class:`bridle_fairseq.nn.knn.Scaling`): without that, all clips are similar. For codes it is the cosine of the square
roots of their frequencies in each level: the Bhattacharyya coefficient averaged over levels, 1 for equal histograms.

A search engine returns candidates, more than needed. Their similarities are then computed again in float64, and ties
are ordered by row. So faiss and the exact search give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.codes import CachedCodes, CodesInfo
from bridle_fairseq.data.artifacts.features import PATCHES, CachedFeatures, FeaturesInfo
from bridle_fairseq.utils.errors import InputError

ROWS_AT_ONCE = 16384
MORE_CANDIDATES = 32


class Neighbour(NamedTuple):
    """A row of an index."""

    row: int
    similarity: float


class Bank:
    """The vectors of an index, read when they are needed.

    Attributes:
        what: kind of the index, ``features`` or ``codes``.
        prefix: path of its files.
        info: their description.
        rows: number of vectors.
        width: values of a vector.
    """

    what: str
    prefix: str
    info: FeaturesInfo | CodesInfo
    rows: int
    width: int

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of these rows, n x width float64; NaN where a clip could not be read."""
        raise NotImplementedError

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Raw vectors -> vectors that are compared."""
        return raw

    def unit(self, raw: np.ndarray) -> np.ndarray:
        """Raw vectors -> vectors that are compared, of length 1; 0 where a clip could not be read."""
        vectors = np.nan_to_num(self.prepare(raw))
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, unit vectors as float32) of consecutive blocks of rows."""
        for start in range(0, self.rows, ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, self.rows))
            yield start, self.unit(self.raw(rows)).astype(np.float32)


class FeatureBank(Bank):
    """An array of pooled features.

    Args:
        features: features of a corpus.
        name: name of the array; None: the first that is pooled.

    Raises:
        InputError: no such array, or no pooled one.
    """

    what = "features"
    info: FeaturesInfo

    def __init__(self, features: CachedFeatures, name: str | None = None) -> None:
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
        """Standardized."""
        return (raw - self.mean) / self.deviation

    def _scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the readable rows, in two passes."""
        count, total, squares = 0, np.zeros(self.width), np.zeros(self.width)
        for values in self._readable_blocks():
            count, total = count + len(values), total + values.sum(0)
        mean = total / max(count, 1)
        for values in self._readable_blocks():
            squares += ((values - mean) ** 2).sum(0)
        return mean, np.maximum(np.sqrt(squares / max(count, 1)), 1e-6)

    def _readable_blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, self.rows, ROWS_AT_ONCE):
            values = self.raw(np.arange(start, min(start + ROWS_AT_ONCE, self.rows)))
            yield values[~np.isnan(values).any(1)]


class CodeBank(Bank):
    """Histograms of codes, K x C values.

    Args:
        codes: codes of a corpus.
    """

    what = "codes"
    info: CodesInfo

    def __init__(self, codes: CachedCodes) -> None:
        self.prefix, self.info, self.codes = codes.prefix, codes.info, codes
        self.rows, self.width = len(codes), codes.info.num_codebooks * codes.info.codebook_size

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`Bank`."""
        return np.stack([self.histogram(self.codes.item(int(row))) for row in rows])

    def histogram(self, codes: np.ndarray) -> np.ndarray:
        """Square roots of the frequencies of a clip's codes (n x K); NaN for a clip without codes."""
        if not len(codes):
            return np.full(self.width, np.nan)
        numbered = codes + np.arange(self.info.num_codebooks) * self.info.codebook_size
        return np.sqrt(np.bincount(numbered.reshape(-1), minlength=self.width) / len(codes))


def load_faiss() -> ModuleType | None:
    """The module ``faiss``; None if it is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def candidates_exactly(bank: Bank, queries: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` most similar rows of each query, by comparing all rows.

    Args:
        bank: the index.
        queries: Q x width float32, of length 1.
        count: number of candidates, at most the number of rows.

    Returns:
        Q x count row numbers, in any order.
    """
    best: np.ndarray = np.full((len(queries), 0), -np.inf, np.float32)
    rows: np.ndarray = np.zeros((len(queries), 0), np.int64)
    for start, block in bank.blocks():
        similarity = queries @ block.T  # Q x rows of the block
        best = np.concatenate([best, similarity], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + len(block)), similarity.shape)], axis=1)
        if best.shape[1] > count:
            kept = np.argpartition(-best, count - 1, axis=1)[:, :count]
            best, rows = np.take_along_axis(best, kept, 1), np.take_along_axis(rows, kept, 1)
    return rows


def candidates_by_faiss(bank: Bank, queries: np.ndarray, count: int) -> np.ndarray:
    """:func:`candidates_exactly` by faiss, which holds all vectors in memory."""
    faiss = load_faiss()
    assert faiss is not None
    index = faiss.IndexFlatIP(bank.width)
    for _, block in bank.blocks():
        index.add(block)
    return index.search(queries, min(count, bank.rows))[1]


def nearest_rows(
    bank: Bank,
    queries: np.ndarray,
    k: int,
    own: Sequence[int | None],
    find: Callable[[Bank, np.ndarray, int], np.ndarray] | None = None,
) -> list[list[Neighbour]]:
    """The ``k`` nearest rows of each query (fewer if there are fewer), the nearest first.

    Args:
        bank: the index.
        queries: Q x width, raw.
        k: number of neighbours.
        own: the row that a query is itself, which is left out; None for a query that is not in the index.
        find: returns candidates, as :func:`candidates_exactly`; None: by faiss if it is installed.
    """
    if find is None:
        find = candidates_exactly if load_faiss() is None else candidates_by_faiss
    unit = bank.unit(queries)
    candidates = find(bank, unit.astype(np.float32), min(k + MORE_CANDIDATES, bank.rows))
    return [_ordered(bank, query, rows, itself, k) for query, rows, itself in zip(unit, candidates, own, strict=True)]


def _ordered(bank: Bank, query: np.ndarray, rows: np.ndarray, itself: int | None, k: int) -> list[Neighbour]:
    rows = np.array(sorted(set(rows.tolist()) - {itself, -1}), np.int64)
    raw = bank.raw(rows) if len(rows) else np.zeros((0, bank.width))
    readable = ~np.isnan(raw).any(1)
    similarity = bank.unit(raw[readable]) @ query
    best = np.argsort(-similarity, kind="stable")[:k]
    return [Neighbour(int(rows[readable][place]), float(similarity[place])) for place in best]
