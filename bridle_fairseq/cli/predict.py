"""``bridle predict``: the likeliest classes of single files, or what is said in them."""

from __future__ import annotations

import argparse

from bridle_fairseq.cli.transcripts import add_decoding_arguments, print_transcripts, refuse_decoding
from bridle_fairseq.cli.views import add_view_arguments, reader_of_views
from bridle_fairseq.utils.errors import DecodeError, InputError

HELP = "the likeliest classes of files by a classifier, or their transcripts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle predict``."""
    parser.add_argument("checkpoint", help="checkpoint of the model 'bridle_classifier' or 'bridle_ctc'")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="files as it was trained on: sounds of any rate and length, images of any size, videos",
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes of each file (%(default)s)")
    parser.add_argument(
        "--segment-seconds",
        type=float,
        metavar="S",
        help="sound: longer files are heard in segments of this length, of which classes have the mean "
        "(default: the longest clip of its training)",
    )
    add_view_arguments(parser)
    add_decoding_arguments(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")


def run(args: argparse.Namespace) -> int:
    """Print each file's name, and under it its likeliest classes with their scores, or its transcript."""
    from bridle_fairseq.data.modalities import modality_of

    if args.top < 1:
        raise InputError(f"--top is {args.top}; expected at least 1")
    from bridle_fairseq.inference.classify import score_file
    from bridle_fairseq.models.checkpoints import load_model
    from bridle_fairseq.utils.device import choose_device

    model, task = load_model(args.checkpoint, choose_device(args.device), ("bridle_classifier", "bridle_ctc"))
    modality = modality_of(task.cfg)
    reader, segment = reader_of_views(args, modality, task.cfg), modality.segment(task.cfg, args.segment_seconds)
    if segment < 1:
        raise InputError(f"--segment-seconds is {args.segment_seconds}; expected more than 0")
    for path in args.files:  # before the first one is answered
        try:
            reader.length(path)
        except DecodeError as error:
            raise InputError(f"{path}: {error}; expected one of {modality.files}") from None
    if hasattr(model, "frame_head"):
        print_transcripts(args, model, task, reader, segment)
        return 0
    refuse_decoding(args)
    names = task.classes.names
    for path in args.files:
        try:
            scores = score_file(model, reader, path, task.cfg.multi_label, segment)
        except DecodeError as error:
            raise InputError(f"{path}: {error}; expected one of {modality.files}") from None
        print(path)
        for number in (-scores).argsort(kind="stable")[: args.top]:
            print(f"  {scores[number]:.4f}  {names[number]}")
    return 0
