"""``bridle demo``: everything once, on sounds that it makes itself or on a user's."""

from __future__ import annotations

import argparse
import os

from bridle_fairseq.errors import InputError

HELP = "train, tokenize and probe on synthetic sounds or on yours, and show it on one page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle demo``."""
    parser.add_argument("--audio", metavar="DIR", help="folder of sound files (default: a dozen synthetic classes)")
    parser.add_argument("--labels", metavar="CSV", help="table with the columns file and label, for the probe")
    parser.add_argument("--dir", default="bridle_demo", help="folder for all that is made (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=500, metavar="N", help="of pretraining (default: %(default)s)")
    parser.add_argument(
        "--clips-per-class", type=int, default=80, metavar="N", help="of the synthetic set (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all randomness (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo; a demo that was interrupted goes on."""
    if args.labels and not args.audio:
        raise InputError("--labels without --audio; expected the folder of the sounds that they label")
    for name, least in (("updates", 30), ("clips_per_class", 10)):
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least {least}")
    audio = os.path.abspath(args.audio) if args.audio else None
    labels = os.path.abspath(args.labels) if args.labels else None
    if audio and not os.path.exists(audio):
        raise InputError(f"{audio}: no such folder; expected one with sound files")
    from bridle_fairseq.demo.run import Demo, Settings

    Demo(args.dir, Settings(audio, labels, args.updates, args.clips_per_class, args.seed)).run()
    return 0
