"""The k-means start of codebooks."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bridle_fairseq.quantization import kmeans as kmeans_module
from bridle_fairseq.quantization import search
from bridle_fairseq.quantization.kmeans import kmeans


def clouds(num_clouds: int, size: int, spread: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in well separated clouds, shuffled, and the clouds' centres."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(num_clouds, 16, generator=draw), dim=1)
    rows = centres.repeat(size, 1) + spread * torch.randn(num_clouds * size, 16, generator=draw)
    return rows[torch.randperm(len(rows), generator=draw)], centres


def distortion(rows: torch.Tensor, centres: torch.Tensor) -> float:
    return float(torch.cdist(rows.double(), centres.double()).min(dim=1).values.square().mean())


@pytest.mark.parametrize("cosine", [False, True])
def test_separated_clouds_are_found_with_their_sizes(cosine):
    rows, truth = clouds(20, 30)
    centres, counts = kmeans(rows, 20, cosine=cosine)
    distances = torch.cdist(centres, truth)
    assert distances.min(dim=1).values.max() < 0.02 and len(distances.argmin(dim=1).unique()) == 20
    assert counts.tolist() == [30] * 20


def test_cosine_groups_by_direction():
    directions = torch.eye(4)
    rows = torch.cat([length * directions for length in (0.1, 1.0, 10.0)])
    centres, counts = kmeans(rows, 4, cosine=True)
    assert counts.tolist() == [3] * 4
    assert torch.nn.functional.normalize(centres, dim=1).sort(dim=0).values.equal(directions.sort(dim=0).values)
    torch.testing.assert_close(centres.norm(dim=1), torch.full((4,), 11.1 / 3))


def test_iterations_lower_the_distortion_and_the_seeding_beats_random_rows():
    rows = torch.randn(2000, 8, generator=torch.Generator().manual_seed(1)) ** 3
    found = [distortion(rows, kmeans(rows, 32, iterations=n)[0]) for n in (0, 1, 3, 10)]
    assert found == sorted(found, reverse=True) and found[-1] < 0.95 * found[1]
    at_random = [distortion(rows, rows[torch.randperm(2000)[:32]]) for _ in range(5)]
    assert found[0] < min(at_random)


def test_centres_are_the_means_of_their_rows():
    rows, _ = clouds(7, 50, spread=0.5)
    centres, counts = kmeans(rows, 12, iterations=60)
    owner = torch.cdist(rows, centres).argmin(dim=1)
    for index in range(12):
        assert counts[index] == (owner == index).sum()
        torch.testing.assert_close(centres[index], rows[owner == index].mean(dim=0))


def test_empty_clusters_move_to_the_rows_that_fit_worst(monkeypatch):
    rows, _ = clouds(9, 40)
    monkeypatch.setattr(
        kmeans_module, "_seed_centroids", lambda r, n, *_: torch.cat([r[: n - 4], torch.full((4, 16), 1e3)])
    )
    centres, counts = kmeans(rows, 12)
    assert counts.min() > 0 and counts.sum() == 360 and centres.max() < 2


def test_a_seed_gives_one_result():
    rows, _ = clouds(9, 40, spread=0.3)
    first, again, other = kmeans(rows, 16, seed=3), kmeans(rows, 16, seed=3), kmeans(rows, 16, seed=4)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("num_rows", [1, 5, 8])
def test_fewer_rows_than_clusters_are_all_centres_with_copies_beside_them(num_rows):
    rows = torch.randn(num_rows, 6, generator=torch.Generator().manual_seed(5))
    centres, counts = kmeans(rows, 8)
    assert torch.equal(centres[:num_rows], rows)
    assert counts.tolist() == [1] * num_rows + [0] * (8 - num_rows)
    assert len(centres.unique(dim=0)) == 8
    assert torch.cdist(centres, rows).min(dim=1).values.max() < 0.05


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_rows_stay_finite(value):
    centres, counts = kmeans(torch.full((50, 3), value), 8)
    assert centres.isfinite().all() and counts.sum() == 50


class LargestResult(TorchDispatchMode):
    """The most values that an operation had in its result, views of ``rows`` left out."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.memory, self.values = rows.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() != self.memory:
            self.values = max(self.values, result.numel())
        return result


def test_memory_does_not_grow_with_rows_times_their_width_or_clusters(monkeypatch):
    monkeypatch.setattr(search, "VALUES_AT_ONCE_CPU", 500)
    rows = torch.randn(3000, 16, generator=torch.Generator().manual_seed(2))
    with LargestResult(rows) as largest:
        kmeans(rows, 20)
    assert largest.values == 3000
