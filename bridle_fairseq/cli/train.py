"""``bridle train``: train a configuration by its name, with a progress bar. A run that was stopped goes on."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

TAKES_SETTINGS = True
HELP = "train a configuration such as audio/small on a folder of manifests; given again, the run goes on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle train``."""
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="audio/small, images/tiny, audio/finetuning/esc50, speech/tiny ... of examples/, or a file *.yaml",
    )
    parser.add_argument("data", metavar="DATA", help="folder that bridle manifest wrote")
    parser.add_argument("--run", required=True, metavar="RUN", dest="folder", help="folder of checkpoints and logs")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings, such as optimization.max_update=1000, model.checkpoint=pretrained.pt or +variant=vq",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the command of fairseq, and do not run it")
    parser.epilog = (
        "Pretraining normalizes its input by the mean and the standard deviation of DATA. They are measured once "
        "(bridle stats) and kept beside the manifest."
    )


def run(args: argparse.Namespace) -> int:
    """Print the command of fairseq-hydra-train, run it, and show its progress."""
    from bridle_fairseq.data.manifests.skipped import listed_paths
    from bridle_fairseq.training.launch import shown
    from bridle_fairseq.training.progress import train_with_bar
    from bridle_fairseq.training.train import TrainOptions, prepare

    options = TrainOptions(args.config, args.data, args.folder, args.overrides)
    prepared = prepare(options, partial(print, file=sys.stderr, flush=True))
    print(shown(prepared.training.command()), flush=True)
    if args.dry_run:
        return 0
    log = prepared.training.save_dir / "train.log"
    records = train_with_bar(prepared.training, log, prepared.updates)
    last = Path(args.folder, "checkpoint_last.pt")
    print(f"{last}: {records[-1].update if records else 0} updates; log: {log}")
    skip_list = prepared.training.save_dir / "skipped.tsv"
    skipped = listed_paths(skip_list)
    if skipped:
        print(f"{skipped} clip{'s' * (skipped != 1)} could not be read: {skip_list}")
    print(f"next: bridle report {shlex.quote(args.folder)}")
    return 0
