"""Run one shard of a :class:`.sharding.ShardedJob`: compute its missing blocks, and join the result if none is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridle_fairseq.data.artifacts.sharding import BlockResult, ShardedJob
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import check_writable
from bridle_fairseq.utils.progress import progress_bar


@dataclass(frozen=True)
class Shard:
    """The share of a job that one process does."""

    index: int
    count: int


WHOLE_JOB = Shard(0, 1)


def parse_shard(text: str | None) -> Shard:
    """Parse ``I/N``; None: the rank and world size in torchrun's environment, or all of the job.

    Raises:
        InputError: not of this form, or I is not below N.
    """
    if text is None:
        return Shard(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise InputError(f"--shard is {text!r}; expected I/N with I from 0 to N - 1, such as 0/4")
    return Shard(int(index), int(count))


@dataclass(frozen=True)
class ShardOutcome:
    """What a process did for a job.

    Attributes:
        job: the job.
        shard: the share of this process.
        was_complete: the complete result was there before, so nothing was done.
        clips: rows that were computed.
        seconds: time that it took.
        summary: summary of the complete result, if this process joined it.
        blocks_left: blocks of other shards that are missing; None if the result is complete.
    """

    job: ShardedJob
    shard: Shard
    was_complete: bool = False
    clips: int = 0
    seconds: float = 0.0
    summary: Any = None
    blocks_left: int | None = None

    def throughput(self, name: str, device: str) -> str:
        """One line: how many clips were computed, and how fast."""
        rate = self.clips / max(self.seconds, 1e-9)
        return f"{name}: {self.clips} clips in {self.seconds:.1f} s, {rate:.1f} clips/s on {device}"


def run_shard(job: ShardedJob, shard: Shard, compute: Callable[[list[int]], object]) -> ShardOutcome:
    """Compute and store what is missing of a shard, then join the result if no block is missing.

    Args:
        job: the job.
        shard: shard of this process.
        compute: computes and stores the blocks of these numbers, such as :func:`compute_blocks`.

    Raises:
        OSError: nothing can be written there.
    """
    if job.finished():
        job.join()  # removes what a killed process, or a second one of a shard, has left
        return ShardOutcome(job, shard, was_complete=True)
    check_writable(Path(job.prefix).parent)
    numbers = job.missing(shard.index, shard.count)
    begun = time.monotonic()
    compute(numbers)
    seconds = time.monotonic() - begun
    clips = sum(len(job.blocks[number]) for number in numbers)
    summary = job.join()
    complete = summary is not None or job.finished()
    return ShardOutcome(job, shard, False, clips, seconds, summary, None if complete else len(job.missing()))


def compute_blocks(
    job: ShardedJob,
    numbers: list[int],
    compute: Callable[[range, Callable[[int], object]], BlockResult],
    max_skipped: float,
    name: str,
) -> None:
    """Compute and store the blocks of these numbers, with a progress bar.

    Args:
        job: a job over a manifest; its skipped rows are listed in ``{prefix}.skipped.tsv``.
        numbers: numbers of the blocks.
        compute: (rows, callback that is given numbers of finished rows) -> result of a block.
        max_skipped: abort if more than this fraction of the clips, and more than 10, is unusable.
        name: label of the progress bar.

    Raises:
        InputError: too many clips were skipped, including those of earlier runs.
    """
    assert job.manifest is not None, "the rows of the job are not those of a manifest"
    skips = SkipLog(job.manifest, f"{job.prefix}.skipped.tsv")
    skips.take_over(job.skipped())  # of an interrupted run, or of other shards
    skips.check(max_skipped)  # starting an aborted run again must not complete it
    with progress_bar(sum(len(job.blocks[number]) for number in numbers), name) as bar:
        for number in numbers:
            if job.has(number):
                bar.update(len(job.blocks[number]))  # by another process of this shard
                continue
            result = compute(job.blocks[number], bar.update)
            for row, reason in result.skipped:
                skips.add(row, reason)
            job.write(number, result)
            skips.check(max_skipped)
