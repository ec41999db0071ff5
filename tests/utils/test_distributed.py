"""Collectives, without a process group and with two gloo ranks."""

import subprocess
import sys

import pytest
import torch

from bridle_fairseq.utils import distributed

SCRIPT = """
import sys, torch, torch.distributed as dist
from bridle_fairseq.utils import distributed as d
folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", world_size=2, rank=rank)
rows = torch.arange(12.0).view(6, 2) + 100 * rank
a, b = torch.full((2, 3), 1.0 + rank), torch.full((4,), 10.0 * rank)
d.all_reduce_sum_together([a, b.view(2, 2).t()])
summed = torch.full((3,), 1.0 + rank)
torch.save({
    "world": (d.world_size(), d.rank()),
    "summed": d.all_reduce_sum(summed), "in_place": summed, "together": (a, b),
    "equal": d.gather_equal(torch.tensor([[rank, 7]])),
    "counts": d.row_counts(rows[: 2 + 4 * rank]),
    "rows": d.gather_rows(rows[: 2 + 4 * rank]),
    "one_empty": d.gather_rows(rows[: 3 * rank]),
    "all_empty": d.gather_rows(rows[:0]),
    "bools": d.gather_rows(torch.tensor([True, False])[: 1 + rank]),
    "sample": d.gather_sample(rows[: 2 + 4 * rank], 5, seed=1),
    "small": d.gather_sample(rows[: 2 + 4 * rank], 50, seed=1),
    "broadcast": d.broadcast(torch.tensor([5.0 + rank])), "from_1": d.broadcast(torch.tensor([5.0 + rank]), source=1),
}, f"{folder}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()  # a rank that simply ends may abort the other one's
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks got."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    processes = [subprocess.Popen([*command, rank]) for rank in "01"]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in "01"]


@pytest.fixture
def joined():
    """The rows of rank 0, then those of rank 1."""
    rows = torch.arange(12.0).view(6, 2)
    return torch.cat([rows[:2], rows + 100])


def test_rank_and_world_size(ranks):
    assert [rank["world"] for rank in ranks] == [(2, 0), (2, 1)]


def test_sums_are_in_place_and_equal_on_all_ranks(ranks):
    for rank in ranks:
        assert rank["summed"].tolist() == rank["in_place"].tolist() == [3.0] * 3
        a, b = rank["together"]
        assert a.tolist() == [[3.0] * 3] * 2 and b.tolist() == [10.0] * 4


def test_rows_are_gathered_in_rank_order(ranks, joined):
    for rank in ranks:
        assert rank["counts"] == [2, 6]
        assert torch.equal(rank["rows"], joined)
        assert torch.equal(rank["one_empty"], joined[2:5])
        assert rank["all_empty"].shape == (0, 2)
        assert rank["bools"].tolist() == [True, True, False]
        assert rank["equal"].tolist() == [[[0, 7]], [[1, 7]]]


def test_sample_equals_that_of_the_joined_rows(ranks, joined):
    expected, total = distributed.gather_sample(joined, 5, seed=1)
    assert total == 8 and expected.shape == (5, 2) and len(expected.unique(dim=0)) == 5
    assert not torch.equal(expected, joined[:5])
    for rank in ranks:
        assert rank["sample"][1] == 8 and torch.equal(rank["sample"][0], expected)
        assert rank["small"][1] == 8 and torch.equal(rank["small"][0], joined)


def test_broadcast_overwrites_with_the_source(ranks):
    assert [rank["broadcast"].item() for rank in ranks] == [5.0, 5.0]
    assert [rank["from_1"].item() for rank in ranks] == [6.0, 6.0]


def test_collectives_are_local_without_a_process_group(joined):
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    kept = joined.clone()
    distributed.all_reduce_sum_together([joined])
    assert distributed.all_reduce_sum(joined) is joined and distributed.broadcast(joined, 1) is joined
    assert distributed.gather_rows(joined) is joined and torch.equal(joined, kept)
    assert distributed.gather_equal(joined).shape == (1, 8, 2) and distributed.row_counts(joined) == [8]
    sample, total = distributed.gather_sample(joined[:0], 5, seed=1)
    assert sample.shape == (0, 2) and total == 0
