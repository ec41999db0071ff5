"""``bridle demo``: everything once, on sounds or images that it makes itself or on a user's."""

from __future__ import annotations

import argparse
import os

from bridle_fairseq.errors import InputError

HELP = "train, tokenize and probe on synthetic sounds or images or on yours, and show it on one page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle demo``."""
    parser.add_argument("--audio", metavar="DIR", help="folder of sound files (default: a dozen synthetic classes)")
    parser.add_argument("--images", metavar="DIR", help="folder of image files, for --modality image")
    parser.add_argument(
        "--modality", choices=("audio", "image"), help="of what is made (default: audio, or that of the folder given)"
    )
    parser.add_argument("--labels", metavar="CSV", help="table with the columns file and label, for the probe")
    parser.add_argument("--dir", default="bridle_demo", help="folder for all that is made (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=500, metavar="N", help="of pretraining (default: %(default)s)")
    parser.add_argument(
        "--clips-per-class", type=int, default=80, metavar="N", help="of the synthetic set (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all randomness (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo; a demo that was interrupted goes on."""
    if args.labels and not (args.audio or args.images):
        raise InputError("--labels without --audio or --images; expected the folder of the files that they label")
    if args.audio and (args.images or args.modality == "image") or args.images and args.modality == "audio":
        raise InputError("--audio goes with --modality audio and --images with --modality image; expected one of them")
    for name, least in (("updates", 30), ("clips_per_class", 10)):
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least {least}")
    modality = args.modality or ("image" if args.images else "audio")
    media = os.path.abspath(args.audio or args.images) if args.audio or args.images else None
    labels = os.path.abspath(args.labels) if args.labels else None
    if media and not os.path.exists(media):
        raise InputError(f"{media}: no such folder; expected one with files of modality {modality}")
    from bridle_fairseq.demo.run import Demo, Settings

    Demo(args.dir, Settings(modality, media, labels, args.updates, args.clips_per_class, args.seed)).run()
    return 0
