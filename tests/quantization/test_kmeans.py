"""k-means."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bridle_fairseq.quantization import kmeans as kmeans_module
from bridle_fairseq.quantization import search
from bridle_fairseq.quantization.kmeans import kmeans


def clouds(num_clouds: int, size: int, spread: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    """Shuffled rows in well separated clouds, and the centers of the clouds."""
    draw = torch.Generator().manual_seed(0)
    centroids = torch.nn.functional.normalize(torch.randn(num_clouds, 16, generator=draw), dim=1)
    rows = centroids.repeat(size, 1) + spread * torch.randn(num_clouds * size, 16, generator=draw)
    return rows[torch.randperm(len(rows), generator=draw)], centroids


def distortion(rows: torch.Tensor, centroids: torch.Tensor) -> float:
    return float(torch.cdist(rows.double(), centroids.double()).min(dim=1).values.square().mean())


@pytest.mark.parametrize("cosine", [False, True])
def test_recovers_separated_clouds_and_their_sizes(cosine):
    rows, truth = clouds(20, 30)
    centroids, counts = kmeans(rows, 20, cosine=cosine)
    distances = torch.cdist(centroids, truth)
    assert distances.min(dim=1).values.max() < 0.02 and len(distances.argmin(dim=1).unique()) == 20
    assert counts.tolist() == [30] * 20


def test_cosine_clusters_by_direction():
    directions = torch.eye(4)
    rows = torch.cat([length * directions for length in (0.1, 1.0, 10.0)])
    centroids, counts = kmeans(rows, 4, cosine=True)
    assert counts.tolist() == [3] * 4
    assert torch.nn.functional.normalize(centroids, dim=1).sort(dim=0).values.equal(directions.sort(dim=0).values)
    torch.testing.assert_close(centroids.norm(dim=1), torch.full((4,), 11.1 / 3))


def test_distortion_falls_with_iterations_and_seeding_beats_random_rows():
    rows = torch.randn(2000, 8, generator=torch.Generator().manual_seed(1)) ** 3
    distortions = [distortion(rows, kmeans(rows, 32, iterations=n)[0]) for n in (0, 1, 3, 10)]
    assert distortions == sorted(distortions, reverse=True) and distortions[-1] < 0.95 * distortions[1]
    at_random = [distortion(rows, rows[torch.randperm(2000)[:32]]) for _ in range(5)]
    assert distortions[0] < min(at_random)


def test_centroids_are_the_means_of_their_rows():
    rows, _ = clouds(7, 50, spread=0.5)
    centroids, counts = kmeans(rows, 12, iterations=60)
    cluster = torch.cdist(rows, centroids).argmin(dim=1)
    for index in range(12):
        assert counts[index] == (cluster == index).sum()
        torch.testing.assert_close(centroids[index], rows[cluster == index].mean(dim=0))


def test_empty_clusters_move_to_the_farthest_rows(monkeypatch):
    rows, _ = clouds(9, 40)
    monkeypatch.setattr(
        kmeans_module, "_seed_centroids", lambda r, n, *_: torch.cat([r[: n - 4], torch.full((4, 16), 1e3)])
    )
    centroids, counts = kmeans(rows, 12)
    assert counts.min() > 0 and counts.sum() == 360 and centroids.max() < 2


def test_seed_determines_the_result():
    rows, _ = clouds(9, 40, spread=0.3)
    first, again, other = kmeans(rows, 16, seed=3), kmeans(rows, 16, seed=3), kmeans(rows, 16, seed=4)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("num_rows", [1, 5, 8])
def test_fewer_rows_than_clusters_become_centroids_and_jittered_copies(num_rows):
    rows = torch.randn(num_rows, 6, generator=torch.Generator().manual_seed(5))
    centroids, counts = kmeans(rows, 8)
    assert torch.equal(centroids[:num_rows], rows)
    assert counts.tolist() == [1] * num_rows + [0] * (8 - num_rows)
    assert len(centroids.unique(dim=0)) == 8
    assert torch.cdist(centroids, rows).min(dim=1).values.max() < 0.05


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_rows_give_finite_centroids(value):
    centroids, counts = kmeans(torch.full((50, 3), value), 8)
    assert centroids.isfinite().all() and counts.sum() == 50


class LargestResult(TorchDispatchMode):
    """Records the largest result of an operation, except views of ``rows``."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.memory, self.values = rows.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() != self.memory:
            self.values = max(self.values, result.numel())
        return result


def test_memory_is_bounded_by_a_few_values_per_row(monkeypatch):
    monkeypatch.setattr(search, "VALUES_AT_ONCE_CPU", 500)
    rows = torch.randn(3000, 16, generator=torch.Generator().manual_seed(2))
    with LargestResult(rows) as largest:
        kmeans(rows, 20)
    assert largest.values == 3000


def test_cluster_of_one_row_is_the_row():
    rows, _ = clouds(5, 20)
    rows = torch.cat([rows, torch.full((1, 16), 9.0)])
    centroids, counts = kmeans(rows, 6)
    (alone,) = (counts == 1).nonzero().flatten().tolist()
    torch.testing.assert_close(centroids[alone], rows[-1])
