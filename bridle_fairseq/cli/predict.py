"""``bridle predict``: the most likely classes of single files, or their transcripts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bridle_fairseq.cli.arguments import (
    MODEL,
    add_decoding_arguments,
    add_device_argument,
    add_view_arguments,
    decoding_options,
    view_options,
)
from bridle_fairseq.utils.errors import InputError, printable

if TYPE_CHECKING:
    import numpy as np

HELP = "the most likely classes of files by a classifier, or their transcripts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle predict``."""
    parser.add_argument("checkpoint", help=f"the model 'bridle_classifier' or 'bridle_ctc': {MODEL}")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="files of the modality it was trained on: sounds of any rate and length, images of any size, videos",
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes of each file (%(default)s)")
    parser.add_argument(
        "--segment-seconds",
        type=float,
        metavar="S",
        help="sound: longer files go through the model in segments of this length, and class scores are averaged "
        "(default: the longest clip of its training)",
    )
    add_view_arguments(parser)
    add_decoding_arguments(parser)
    add_device_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print each file's name, and under it its most likely classes with their scores, or its transcript.

    A file that cannot be used is reported, and the others are still answered; the exit code is then 2.
    """
    if args.top < 1:
        raise InputError(f"--top is {args.top}; expected at least 1")
    from bridle_fairseq.data.modalities import modality_of
    from bridle_fairseq.inference.classify import classify_files, reader_of_views
    from bridle_fairseq.inference.transcribe import transcribe_files
    from bridle_fairseq.open_model import open_model
    from bridle_fairseq.utils.device import choose_device

    opened = open_model(args.checkpoint, "outputs", choose_device(args.device))
    model, modality, decoding = opened.model, modality_of(opened.inputs), decoding_options(args)
    reader = reader_of_views(view_options(args), modality, opened.inputs)
    segment = modality.segment(opened.inputs, args.segment_seconds)
    if segment < 1:
        raise InputError(f"--segment-seconds is {args.segment_seconds}; expected more than 0")
    if opened.vocabulary is not None:
        found = transcribe_files(model, reader, args.files, segment, opened.vocabulary, decoding)
        return _report(found, lambda text: [text])
    assert opened.classes is not None
    decoding.refuse()
    names = opened.classes.names

    def lines(scores: np.ndarray) -> list[str]:
        best = (-scores).argsort(kind="stable")[: args.top]
        return [f"{scores[number]:.4f}  {names[number]}" for number in best]

    scored = classify_files(model, reader, args.files, segment, opened.multi_label, modality.files)
    return _report(scored, lines)


def _report(results: Iterable[tuple[str, Any]], lines: Callable[[Any], list[str]]) -> int:
    """Print results in order, those of bad files on stderr; the exit code, 2 if there was one."""
    files = bad = 0
    for path, result in results:
        files += 1
        if isinstance(result, InputError):
            bad += 1
            print(f"bridle: error: {result}", file=sys.stderr, flush=True)
        else:
            print("\n  ".join([printable(path), *lines(result)]), flush=True)
    if bad and files > 1:
        print(f"bridle: error: {bad} of {files} files cannot be used; see above", file=sys.stderr)
    return 2 if bad else 0
