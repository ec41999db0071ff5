"""Nearest rows against a float64 loop, exactly and by faiss."""

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from bridle_fairseq.data.artifacts.features import CachedFeatures, FeatureArray, FeaturesInfo, write_description
from bridle_fairseq.evaluation import retrieval
from bridle_fairseq.utils.errors import InputError

ROWS, WIDTH, MISSING = 70, 6, (5, 40)
ENGINES = {"exact": retrieval.candidates_exactly, "faiss": retrieval.candidates_by_faiss}


class FlatIndex:
    """faiss.IndexFlatIP in a few lines, where faiss is not installed."""

    def __init__(self, width):
        self.vectors = np.zeros((0, width), np.float32)

    def add(self, vectors):
        self.vectors = np.concatenate([self.vectors, vectors])

    def search(self, queries, count):
        similarity = queries @ self.vectors.T
        rows = np.argsort(-similarity, axis=1)[:, :count]
        return np.take_along_axis(similarity, rows, 1), rows


@pytest.fixture(autouse=True)
def faiss(monkeypatch):
    if importlib.util.find_spec("faiss") is None:
        monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace(IndexFlatIP=FlatIndex))


@pytest.fixture
def vectors():
    """Features whose mean is far from 0, two of them of unreadable clips, three of them the same."""
    values = np.random.default_rng(0).normal(3.0, [1, 1, 1, 5, 1, 0.1], (ROWS, WIDTH)).astype(np.float32)
    values[[11, 60]] = values[10]
    values[list(MISSING)] = np.nan
    return values


@pytest.fixture
def bank(tmp_path, vectors):
    array = FeatureArray("encoder", "mean", 2, WIDTH)
    info = FeaturesInfo((array, FeatureArray("encoder", "patches", 2, WIDTH)), "float32", {}, "a", "b")
    prefix = tmp_path / "train.features"
    np.save(f"{prefix}.mean.layer2.npy", vectors)
    np.save(f"{prefix}.patches.layer2.npy", vectors)
    np.save(f"{prefix}.offsets.npy", np.arange(ROWS + 1))
    write_description(prefix, info, ROWS, [])
    return retrieval.FeatureBank(CachedFeatures(prefix))


def spelled_out(values, query, k, own=None):
    """The k most similar rows by a loop, in float64."""
    there = [row for row in range(ROWS) if row not in MISSING]
    mean, deviation = values[there].astype(np.float64).mean(0), values[there].astype(np.float64).std(0)
    scaled = (np.asarray(values, np.float64) - mean) / deviation
    wanted = (query - mean) / deviation
    found = []
    for row in there:
        similarity = scaled[row] @ wanted / np.linalg.norm(scaled[row]) / np.linalg.norm(wanted)
        if row != own:
            found.append((-similarity, row))
    return [(row, -similarity) for similarity, row in sorted(found)[:k]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("block", [9, 1000])
def test_nearest_rows_equal_a_loop(bank, vectors, monkeypatch, engine, block):
    monkeypatch.setattr(retrieval, "ROWS_AT_ONCE", block)
    monkeypatch.setattr(retrieval, "MORE_CANDIDATES", 6)
    queries = np.random.default_rng(1).normal(3, 1, (8, WIDTH))
    found = retrieval.nearest_rows(bank, queries, 4, [None] * 8, ENGINES[engine])
    for query, neighbours in zip(queries, found, strict=True):
        expected = spelled_out(vectors, query, 4)
        assert [row for row, _ in neighbours] == [row for row, _ in expected]
        np.testing.assert_allclose([s for _, s in neighbours], [s for _, s in expected], atol=1e-9)


def test_candidates_are_the_most_similar_rows_and_no_others():
    """Of many rows, because NumPy sorts short arrays as a whole."""
    rng = np.random.default_rng(2)
    values, queries = (rng.normal(size=(n, WIDTH)).astype(np.float32) for n in (5000, 40))
    bank = SimpleNamespace(blocks=lambda: [(0, values[:3000]), (3000, values[3000:])])
    found = retrieval.candidates_exactly(bank, queries, 300)
    nearest = np.argsort(-(queries @ values.T))[:, :300]
    assert np.array_equal(np.sort(found), np.sort(nearest))


def test_query_row_is_excluded_and_ties_are_ordered_by_row(bank, vectors):
    queries = bank.raw(np.array([10, 60]))
    found = [retrieval.nearest_rows(bank, queries, 3, [10, 60], engine) for engine in ENGINES.values()]
    assert found[0] == found[1]
    assert [n.row for n in found[0][0]][:2] == [11, 60] and [n.row for n in found[0][1]][:2] == [10, 11]
    assert found[0][0][0].similarity == pytest.approx(1)


def test_unreadable_rows_are_never_neighbours(bank):
    for engine in ENGINES.values():
        ((*neighbours,),) = retrieval.nearest_rows(bank, bank.raw(np.array([0])), 500, [0], engine)
        assert {n.row for n in neighbours} == set(range(ROWS)) - {0, *MISSING}


def test_faiss_is_used_if_installed(bank, monkeypatch):
    used = []
    monkeypatch.setattr(retrieval, "candidates_by_faiss", lambda *a: used.append("faiss") or ENGINES["exact"](*a))
    retrieval.nearest_rows(bank, bank.raw(np.array([0])), 2, [0])
    monkeypatch.setitem(sys.modules, "faiss", None)  # importing it fails
    assert retrieval.load_faiss() is None
    retrieval.nearest_rows(bank, bank.raw(np.array([0])), 2, [0])
    assert used == ["faiss"]


def test_array_by_name(bank):
    features = CachedFeatures(bank.prefix)
    assert retrieval.FeatureBank(features, "mean.layer2").array.layer == 2
    with pytest.raises(InputError, match=r"no pooled features patches.layer2; there are mean.layer2"):
        retrieval.FeatureBank(features, "patches.layer2")


class Codes:
    """As CachedCodes has them: two clips and one that could not be read."""

    prefix, info = "train.codes", SimpleNamespace(num_codebooks=2, codebook_size=4)
    items = ([[0, 3], [0, 0], [3, 3], [0, 3]], [[0, 3], [3, 0]], [])

    def __len__(self):
        return 3

    def item(self, row):
        return np.array(self.items[row], np.int64).reshape(-1, 2)


def test_code_histograms_are_compared_level_by_level():
    bank = retrieval.CodeBank(Codes())
    assert bank.rows == 3 and bank.width == 8
    ((neighbour,),) = retrieval.nearest_rows(bank, bank.raw(np.array([0])), 5, [0], ENGINES["exact"])
    coefficient = (3 / 4 * 1 / 2) ** 0.5 + (1 / 4 * 1 / 2) ** 0.5  # of both levels; of both together it would be 1
    assert neighbour.row == 1 and neighbour.similarity == pytest.approx(coefficient)
