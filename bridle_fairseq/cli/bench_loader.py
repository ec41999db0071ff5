"""``bridle bench-loader``: how fast the data loader delivers a manifest's clips for training."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bridle_fairseq.cli.arguments import add_modality_argument
from bridle_fairseq.utils.errors import InputError, printable

HELP = "clips a second from the data loader alone, and how many cores a GPU needs for it"
TAKES_OVERRIDES = True


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
        help="training speed of a GPU, for the number of cores it needs (%(default)s); a run logs its clips_per_second",
    )
    parser.epilog = "After -- come settings of the task, such as task.max_sample_size=80000 or task.image_size=64."


def run(args: argparse.Namespace) -> int:
    """Measure, and print the speed."""
    from bridle_fairseq.data.manifests.manifest import Manifest
    from bridle_fairseq.data.manifests.skipped import SkipLog
    from bridle_fairseq.training.loader_speed import LoaderOptions, measure_loader

    options = LoaderOptions(
        args.manifest, args.modality, args.batch_size, args.max_tokens, args.workers, args.seconds, args.overrides
    )
    if not args.gpu_clips_per_second > 0:
        raise InputError(f"--gpu-clips-per-second is {args.gpu_clips_per_second}; expected more than 0")
    manifest = Manifest.read(args.manifest)
    with tempfile.TemporaryDirectory() as folder:
        skips = SkipLog(manifest, Path(folder, "skipped.tsv"))
        speed = measure_loader(options, manifest, skips)
        for _, path, reason in skips.entries():
            print(f"skipped: {printable(path)}: {printable(reason)}", file=sys.stderr)
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
