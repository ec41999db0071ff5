"""Several looks at a video, over which a classifier's scores are averaged: arguments of commands."""

from __future__ import annotations

import argparse
from typing import Any

from bridle_fairseq.utils.errors import InputError


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """How many clips of a file, and how many parts of their frames."""
    parser.add_argument(
        "--clips", type=int, default=1, metavar="N", help="video: mean over N clips from a file's start to its end (1)"
    )
    parser.add_argument(
        "--crops", type=int, default=1, metavar="N", help="video: mean over N squares along the longer side (1)"
    )


def reader_of_views(args: argparse.Namespace, modality: Any, cfg: Any) -> Any:
    """What reads files as ``--clips`` and ``--crops`` say; without them as validation does.

    Raises:
        InputError: numbers that cannot be, or another modality than video.
    """
    if args.clips < 1 or args.crops < 1:
        raise InputError(f"--clips is {args.clips} and --crops {args.crops}; expected at least 1 each")
    reader = modality.reader(cfg)
    if args.clips == args.crops == 1:
        return reader
    if modality.name != "video":
        found = f"--clips is {args.clips} and --crops {args.crops} with a model of modality {modality.name}"
        raise InputError(f"{found}; expected 1 each: they are for video")
    return reader.of_views(args.clips, args.crops)
