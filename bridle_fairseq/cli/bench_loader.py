"""``bridle bench-loader``: how fast a manifest's files come out of the data loader, as training asks for them."""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from bridle_fairseq.cli.arguments import add_modality_argument
from bridle_fairseq.utils.errors import InputError

HELP = "clips a second from the data loader alone, and how many cores a GPU needs for it"
TAKES_OVERRIDES = True


class Speed(NamedTuple):
    """What was measured."""

    clips: int
    file_bytes: int
    seconds: float  # by the clock
    cpu_seconds: float  # of this process, its workers and theirs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle bench-loader``."""
    parser.add_argument("manifest", help="{split}.tsv: root folder, then path<TAB>size")
    add_modality_argument(parser)
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="clips of a batch (%(default)s)")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="sound: samples of a padded batch (no limit)")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(4, os.cpu_count() or 1),
        metavar="N",
        help="processes that read (%(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of measuring (%(default)s)")
    parser.add_argument(
        "--gpu-clips-per-second",
        type=float,
        default=1200.0,
        metavar="N",
        help="what a GPU trains on, for the number of cores it needs (%(default)s); a run logs its clips_per_second",
    )
    parser.epilog = "After -- come settings of the task, such as task.max_sample_size=80000 or task.image_size=64."


def run(args: argparse.Namespace) -> int:
    """Measure, and print what was found."""
    for name, least in (("batch_size", 1), ("workers", 0)):
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least {least}")
    for name in ("seconds", "gpu_clips_per_second"):
        if not getattr(args, name) > 0:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected more than 0")
    from bridle_fairseq.data.manifests.manifest import Manifest
    from bridle_fairseq.data.manifests.skipped import SkipLog

    manifest = Manifest.read(args.manifest)
    with tempfile.TemporaryDirectory() as folder:
        skips = SkipLog(manifest, Path(folder, "skipped.tsv"))
        speed = _measure(args, manifest, skips)
        listed = skips.listed()
    for _, path, reason in listed:
        print(f"skipped: {path}: {reason}", file=sys.stderr)
    if not speed.clips:
        raise InputError(f"{args.manifest}: not one file could be read; expected some")
    rate, cpu = speed.clips / speed.seconds, speed.cpu_seconds / speed.clips
    workers = f"{args.workers} worker{'s' * (args.workers != 1)}" if args.workers else "no workers"
    print(f"{args.manifest}: {speed.clips} clips in {speed.seconds:.1f} s, {workers}; {skips.count} skipped")
    megabytes = speed.file_bytes / speed.seconds / 1e6
    print(f"{rate:.1f} clips/s, {megabytes:.1f} MB/s of files, {1000 * cpu:.2f} ms of CPU a clip")
    wanted = args.gpu_clips_per_second
    print(f"a GPU that trains on {wanted:g} clips/s needs {wanted * cpu:.1f} cores like these for it")
    return 0


def _measure(args: argparse.Namespace, manifest: Any, skips: Any) -> Speed:
    """Read until the time is over; CPU time is of all that was read, and the start of the workers is part of it."""
    begun = _cpu_seconds()
    rows, seconds, before = _read(args, manifest, skips)
    gc.collect()  # ends the workers, whose time counts once they have ended
    cpu_seconds = (_cpu_seconds() - begun) * len(rows) / max(1, len(rows) + before)
    return Speed(len(rows), sum(_stored_bytes(manifest.path(row)) for row in rows), seconds, cpu_seconds)


def _read(args: argparse.Namespace, manifest: Any, skips: Any) -> tuple[list[int], float, int]:
    """Rows of the batches that came in the time, the time, and how many clips came before: workers had to start."""
    import bridle_fairseq

    bridle_fairseq.register()
    warnings.filterwarnings("ignore", message=".*pin_memory")  # fairseq asks for it where there is no GPU, too
    from fairseq.tasks import setup_task

    from bridle_fairseq.data.dataset import checked_batch
    from bridle_fairseq.data.modalities import modality_of
    from bridle_fairseq.tasks.datasets import FairseqMedia

    cfg = _configuration(args)
    dataset = FairseqMedia(
        modality_of(cfg).dataset(manifest, cfg, training=True, skips=skips), read_threads=cfg.read_threads
    )
    options = {"max_sentences": args.batch_size, "max_tokens": args.max_tokens, "num_workers": args.workers}
    batches = _epochs(setup_task(cfg).get_batch_iterator(dataset, seed=1, **options))
    before = sum(len(batch["id"]) for batch in (checked_batch(next(batches)) for _ in range(1 + args.workers)) if batch)
    rows: list[int] = []
    begun = time.perf_counter()
    for batch in batches:
        rows += batch["id"].tolist() if checked_batch(batch) else []
        if time.perf_counter() - begun > args.seconds:
            break
    return rows, time.perf_counter() - begun, before


def _epochs(batch_iterator: Any) -> Any:
    """Batches of one epoch after another."""
    while True:
        yield from batch_iterator.next_epoch_itr(shuffle=True)


def _configuration(args: argparse.Namespace) -> Any:
    """The settings of a task, those after ``--`` among them."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from bridle_fairseq.tasks.bridle_pretraining import BridlePretrainingConfig

    cfg = OmegaConf.structured(BridlePretrainingConfig)
    cfg._name = "bridle_pretraining"
    cfg.data, cfg.modality, cfg.seed = os.path.dirname(os.path.abspath(args.manifest)), args.modality, 1
    for override in args.overrides:
        name, equals, value = override.partition("=")
        if not equals or not name.startswith("task.") or name[5:] in ("data", "modality", "codes"):
            raise InputError(f"{override!r} after --; expected settings of reading such as task.max_sample_size=80000")
        try:
            cfg = OmegaConf.merge(cfg, OmegaConf.from_dotlist([f"{name[5:]}={value}"]))
        except OmegaConfBaseException as error:
            raise InputError(f"{override!r} after --: {str(error).splitlines()[0]}") from None
    return cfg


def _stored_bytes(path: str) -> int:
    """Size of a file, or of a slice of an archive."""
    from bridle_fairseq.data.manifests.archive import split_slice

    file, piece = split_slice(path)
    return piece[1] if piece else os.path.getsize(file)


def _cpu_seconds() -> float:
    """Of this process and of all its processes that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
