"""``bridle report``: one HTML page about a run, or one that compares several."""

from __future__ import annotations

import argparse

from bridle_fairseq.utils.errors import InputError

HELP = "write one HTML page about a run of pretraining or fine-tuning, or one that compares several"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle report``."""
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folder in which fairseq-hydra-train ran")
    parser.add_argument(
        "--out", metavar="FILE", help="the page (default: RUN_DIR/report.html; needed for several runs)"
    )
    parser.add_argument("--manifest", metavar="TSV", help="clips to show (default: the run's validation split)")
    parser.add_argument(
        "--clips", type=int, default=4, metavar="N", help="clips with their codes (default: %(default)s)"
    )
    parser.add_argument("--points", type=int, default=400, metavar="N", help="clips on the map (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    for name in ("clips", "points"):
        if getattr(args, name) < 0:
            raise InputError(f"--{name} is {getattr(args, name)}; expected 0 or more")
    from bridle_fairseq.report.write import write_report
    from bridle_fairseq.utils.files import size_text

    path, size = write_report(args.runs, args.out, args.manifest, args.clips, args.points)
    print(f"{path}: {size_text(size)}")
    return 0
