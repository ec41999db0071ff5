"""``bridle report``: one HTML page about a run, or one that compares several."""

from __future__ import annotations

import argparse
import os

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
    """Read the runs and write the page."""
    for name in ("clips", "points"):
        if getattr(args, name) < 0:
            raise InputError(f"--{name} is {getattr(args, name)}; expected 0 or more")
    if len(args.runs) > 1 and args.out is None:
        raise InputError(f"{len(args.runs)} runs and no --out; expected --out FILE for the page that compares them")
    from bridle_fairseq.report.compare import comparison
    from bridle_fairseq.report.finetuning import finetuning_page
    from bridle_fairseq.report.page import run_page
    from bridle_fairseq.report.run import read_run
    from bridle_fairseq.utils.files import atomic_text

    runs = [read_run(folder) for folder in args.runs]
    kinds = {run.pretraining: run.folder for run in runs}
    if len(kinds) > 1:
        raise InputError(
            f"{kinds[True]} is a run of pretraining, {kinds[False]} of fine-tuning; expected runs of a kind"
        )
    if len(runs) == 1 and not runs[0].pretraining:
        text = finetuning_page(runs[0])
    elif len(runs) == 1:
        text = run_page(runs[0], args.manifest, args.clips, args.points)
    else:
        text = comparison(runs)
    out = args.out or os.path.join(args.runs[0], "report.html")
    with atomic_text(out) as file:
        file.write(text)
    print(f"{out}: {len(text.encode()) / 1e6:.1f} MB")
    return 0
