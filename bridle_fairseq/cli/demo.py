"""``bridle demo``: the whole method once, on synthetic sounds, images or videos or on a user's files."""

from __future__ import annotations

import argparse
import os

from bridle_fairseq.utils.errors import InputError

HELP = "train, tokenize and probe on synthetic sounds, images or videos or on yours, and show it on one page"
FOLDERS = {"audio": "audio", "images": "image", "video": "video"}  # option -> modality


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle demo``."""
    parser.add_argument("--audio", metavar="DIR", help="folder of sound files (default: a dozen synthetic classes)")
    parser.add_argument("--images", metavar="DIR", help="folder of image files, for --modality image")
    parser.add_argument("--video", metavar="DIR", help="folder of video files, for --modality video")
    parser.add_argument(
        "--modality",
        choices=tuple(FOLDERS.values()),
        help="of what is made (default: audio, or that of the folder given)",
    )
    parser.add_argument("--labels", metavar="CSV", help="table with the columns file and label, for the probe")
    parser.add_argument("--dir", default="bridle_demo", help="folder for all that is made (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=400, metavar="N", help="of pretraining (default: %(default)s)")
    parser.add_argument(
        "--clips-per-class", type=int, default=80, metavar="N", help="of the synthetic set (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all randomness (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo; an interrupted one is resumed."""
    given = [option for option in FOLDERS if getattr(args, option)]
    if args.labels and not given:
        raise InputError(f"--labels without --{', --'.join(FOLDERS)}; expected the folder of the files that they label")
    if len(given) > 1 or given and args.modality not in (None, FOLDERS[given[0]]):
        pairs = ", ".join(f"--{option} with --modality {modality}" for option, modality in FOLDERS.items())
        raise InputError(f"folders and modality that do not fit; expected one folder: {pairs}")
    for name, least in (("updates", 30), ("clips_per_class", 10)):
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least {least}")
    modality = FOLDERS[given[0]] if given else args.modality or "audio"
    media = os.path.abspath(getattr(args, given[0])) if given else None
    labels = os.path.abspath(args.labels) if args.labels else None
    if media and not os.path.exists(media):
        raise InputError(f"{media}: no such folder; expected one with files of modality {modality}")
    from bridle_fairseq.training.launch import find_script

    find_script()  # before what other packages lack
    from bridle_fairseq.demo.run import Demo, DemoSettings

    Demo(args.dir, DemoSettings(modality, media, labels, args.updates, args.clips_per_class, args.seed)).run()
    return 0
