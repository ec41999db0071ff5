"""Shards of a job: parsing, what each process computes, and which one joins the result."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bridle_fairseq.data.artifacts.shard_run import Shard, compute_blocks, parse_shard, run_shard
from bridle_fairseq.data.artifacts.sharding import BlockResult, ShardedJob
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class Info:
    version: int = 1


class RowsJob(ShardedJob):
    """Writes the number of rows."""

    what, endings = "rows", ("txt",)

    def stored_info(self) -> Info:
        return Info(int(Path(f"{self.prefix}.json").read_text()))

    def _join(self) -> int:
        Path(f"{self.prefix}.txt").write_text("".join(f"{len(rows)}\n" for rows in self.blocks))
        Path(f"{self.prefix}.json").write_text("1")
        return sum(map(len, self.blocks))


@pytest.fixture
def job(tmp_path) -> RowsJob:
    """Ten rows in four blocks."""
    manifest = Manifest(tmp_path, [f"{n}.wav" for n in range(10)], [1] * 10)
    blocks = [range(0, 3), range(3, 6), range(6, 9), range(9, 10)]
    return RowsJob(tmp_path / "train.rows", Info(), manifest, blocks=blocks)


def store(job: ShardedJob, skipped=()):
    """Computes blocks of a job; ``skipped`` rows are unusable."""

    def compute(rows, on_done) -> BlockResult:
        on_done(len(rows))
        return BlockResult({}, [(row, "corrupt") for row in rows if row in skipped])

    return lambda numbers: compute_blocks(job, numbers, compute, 0.1, "test")


def test_parse_shard(monkeypatch) -> None:
    assert parse_shard("1/4") == Shard(1, 4)
    for text in ("4/4", "1", "a/b", "-1/2"):
        with pytest.raises(InputError, match="expected I/N"):
            parse_shard(text)
    assert parse_shard(None) == Shard(0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert parse_shard(None) == Shard(2, 3)


def test_last_shard_joins_the_result(job) -> None:
    first = run_shard(job, Shard(1, 2), store(job))
    assert (first.clips, first.summary, first.blocks_left) == (4, None, 2)
    last = run_shard(job, Shard(0, 2), store(job))
    assert (last.clips, last.summary, last.blocks_left) == (6, 10, None)
    assert last.throughput("train", "cpu").startswith("train: 6 clips in ")
    again = run_shard(job, Shard(0, 2), store(job))
    assert again.was_complete and again.clips == 0


def test_too_many_skipped_rows_stop_the_job_even_if_started_again(job) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match="3 of 10 clips had to be skipped"):
            run_shard(job, Shard(0, 1), store(job, skipped=(0, 4, 6)))
    assert not job.finished()


def test_second_process_of_a_shard_stops_when_the_first_has_joined(job) -> None:
    def compute(numbers) -> None:
        assert run_shard(job, Shard(0, 1), store(job)).summary == 10
        store(job)(numbers)  # finds the result
        job.write(0, BlockResult({}, []))  # was being computed when the first joined

    second = run_shard(job, Shard(0, 1), compute)
    assert (second.summary, second.blocks_left) == (None, None) and job.finished()
    assert not job.folder.exists()


def test_blocks_of_another_process_are_not_computed_again(job) -> None:
    computed = []

    def compute(rows, on_done) -> BlockResult:
        computed.append(rows)
        job.write(2, BlockResult({}, []))
        return BlockResult({}, [])

    run_shard(job, Shard(0, 1), lambda numbers: compute_blocks(job, numbers, compute, 0.1, "test"))
    assert computed == [range(0, 3), range(3, 6), range(9, 10)]


@pytest.mark.parametrize("finished", [True, False])
def test_folder_that_vanishes_is_an_error_unless_the_result_is_there(job, monkeypatch, finished) -> None:
    def vanish(file, **arrays) -> None:
        raise FileNotFoundError(2, "No such file or directory", "x")

    monkeypatch.setattr("bridle_fairseq.data.artifacts.sharding.np.savez", vanish)
    monkeypatch.setattr(job, "finished", lambda: finished)
    if finished:
        job.write(0, BlockResult({}, []))
    else:
        with pytest.raises(FileNotFoundError):
            job.write(0, BlockResult({}, []))


def test_blocks_left_by_a_killed_join_are_removed(job) -> None:
    run_shard(job, Shard(0, 1), store(job))
    job.write(0, BlockResult({}, []))
    assert run_shard(job, Shard(0, 1), store(job)).was_complete and not job.folder.exists()
