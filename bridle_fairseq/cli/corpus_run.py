"""What commands over a whole corpus share: their arguments, shards, and the loop over the blocks that are missing."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from bridle_fairseq.utils.errors import InputError


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """How clips are read and batched, and where the model runs."""
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="clips of a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=3_200_000,
        metavar="N",
        help="sound: samples of a padded batch (default: %(default)s)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    parser.add_argument(
        "--max-skipped",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="stop above this share of unusable clips (0.01)",
    )
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="threads that read files")


def add_shard_argument(parser: argparse.ArgumentParser) -> None:
    """Which part of the corpus this process does."""
    parser.add_argument(
        "--shard", metavar="I/N", help="do part I (from 0) of N only; under torchrun each rank does its own"
    )


def check_batch_arguments(args: argparse.Namespace) -> None:
    """See that they are numbers that can work.

    Raises:
        InputError: one of them is too small.
    """
    for name in ("batch_size", "max_tokens", "workers"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least 1")


def read_shard(text: str | None) -> tuple[int, int]:
    """Number of this shard, from 0, and how many there are: of ``I/N``, or of torchrun's environment.

    Raises:
        InputError: something else.
    """
    if text is None:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise InputError(f"--shard is {text!r}; expected I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)


def open_corpus(args: argparse.Namespace) -> tuple[int, int, Any]:
    """Number of this shard, how many there are, and the manifest, whose files are there.

    Raises:
        InputError: an argument that cannot work, a manifest that cannot be read, or files that are missing.
    """
    from bridle_fairseq.data.manifests.manifest import Manifest

    shard, num_shards = read_shard(args.shard)
    check_batch_arguments(args)
    manifest = Manifest.read(args.manifest)
    manifest.check_files()
    return shard, num_shards, manifest


def make_missing(
    job: Any, todo: list[int], make: Callable[[range, Callable[[int], object]], Any], max_skipped: float, name: str
) -> tuple[int, float]:
    """Make and store these blocks; the number of their clips, and the seconds it took.

    Args:
        job: a :class:`bridle_fairseq.data.artifacts.sharding.ShardedJob`.
        todo: numbers of blocks.
        make: (rows, what hears of finished rows) -> the result of a block.
        max_skipped: share of the clips that may be unusable; more stop the work.
        name: beside the progress bar.

    Raises:
        InputError: too many clips had to be skipped, those of earlier runs among them.
    """
    from bridle_fairseq.data.manifests.skipped import SkipLog

    skips = SkipLog(job.manifest, f"{job.prefix}.skipped.tsv")
    skips.take_over(job.skipped())  # of a run that was stopped, or of other shards
    skips.check(max_skipped)  # a run that was stopped for them must not be finished by starting it again
    clips, begun = sum(len(job.blocks[number]) for number in todo), time.monotonic()
    with progress_bar(clips, name) as bar:
        for number in todo:
            result = make(job.blocks[number], bar.update)
            for row, reason in result.skipped:
                skips.add(row, reason)
            job.write(number, result)
            skips.check(max_skipped)
    return clips, time.monotonic() - begun


def progress_bar(total: int, name: str) -> Any:
    """A bar of clips; none where there is nothing to do."""
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 30.0  # a log file needs no line five times a second
    return tqdm(total=total, desc=name, unit=" clips", mininterval=interval, disable=total == 0)
