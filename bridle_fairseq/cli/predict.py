"""``bridle predict``: the likeliest classes of single sound files."""

from __future__ import annotations

import argparse

from bridle_fairseq.errors import InputError

HELP = "the likeliest classes of sound files, by a classifier"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle predict``."""
    parser.add_argument("checkpoint", help="checkpoint of the model 'bridle_classifier'")
    parser.add_argument("files", nargs="+", metavar="FILE", help="sound files of any rate and length")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes of each file (%(default)s)")
    parser.add_argument(
        "--segment-seconds",
        type=float,
        metavar="S",
        help="of longer files the mean over segments of this length (default: the longest clip of its training)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")


def run(args: argparse.Namespace) -> int:
    """Print each file's name, and under it its likeliest classes with their scores."""
    from bridle_fairseq.data.decode import DecodeError, read_info

    if args.top < 1:
        raise InputError(f"--top is {args.top}; expected at least 1")
    for path in args.files:  # before a model is loaded for nothing
        try:
            read_info(path)
        except DecodeError as error:
            raise InputError(f"{path}: {error}; expected a sound file") from None
    from bridle_fairseq.classify import score_file
    from bridle_fairseq.cli.checkpoint import choose_device, load_model

    model, task = load_model(args.checkpoint, choose_device(args.device), ("bridle_classifier",))
    segment = int(task.cfg.max_sample_size)
    if args.segment_seconds is not None:
        segment = round(args.segment_seconds * model.settings.sample_rate)
    if segment < 1:
        raise InputError(f"--segment-seconds is {args.segment_seconds}; expected more than 0")
    names = task.classes.names
    for path in args.files:
        try:
            scores = score_file(model, path, task.cfg.multi_label, segment)
        except DecodeError as error:
            raise InputError(f"{path}: {error}; expected a sound file") from None
        print(path)
        for number in (-scores).argsort(kind="stable")[: args.top]:
            print(f"  {scores[number]:.4f}  {names[number]}")
    return 0
