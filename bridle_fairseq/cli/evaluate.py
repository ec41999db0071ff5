"""``bridle evaluate``: the metrics of a fine-tuned model on a labelled manifest, as in its validation."""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING

from bridle_fairseq.cli.arguments import (
    MODEL,
    add_decoding_arguments,
    add_device_argument,
    add_max_skipped_argument,
    add_view_arguments,
    decoding_options,
    read_manifest,
    view_options,
)

if TYPE_CHECKING:  # keeps --help fast: torch takes seconds to import
    from bridle_fairseq.training.evaluate import ClassifierReport, TranscriberReport

HELP = "metrics of a classifier or a transcriber on a labelled manifest, and tables of its predictions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle evaluate``."""
    parser.add_argument("checkpoint", help=f"the model 'bridle_classifier' or 'bridle_ctc': {MODEL}")
    parser.add_argument("manifest", help="{split}.tsv: root folder, then path<TAB>size")
    parser.add_argument(
        "--labels", metavar="FILE", help="class ids or symbols of each row (default: {split}.lbl, .ltr ...)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="gets {split}.predictions.csv, .classes.csv, .confusion.csv, or {split}.transcripts.csv "
        "(default: evaluation, beside the checkpoint)",
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="clips of a batch (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that read files (%(default)s)")
    add_view_arguments(parser)
    add_decoding_arguments(parser)
    add_device_argument(parser)
    add_max_skipped_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Write the tables, print the metrics."""
    from bridle_fairseq.open_model import folder_beside, open_model
    from bridle_fairseq.training.evaluate import EvaluateOptions, evaluate_classifier, evaluate_transcriber
    from bridle_fairseq.utils.device import choose_device
    from bridle_fairseq.utils.files import check_writable
    from bridle_fairseq.utils.progress import with_progress

    options = EvaluateOptions(
        manifest=args.manifest,
        out=args.out or os.path.join(folder_beside(args.checkpoint), "evaluation"),
        labels=args.labels,
        batch_size=args.batch_size,
        workers=args.workers,
        max_skipped=args.max_skipped,
        views=view_options(args),
        decoding=decoding_options(args),
    )
    manifest = read_manifest(args.manifest)
    opened = open_model(args.checkpoint, "outputs", choose_device(args.device))
    check_writable(options.out)
    progress = partial(with_progress, name="evaluate", unit="batches")
    if opened.vocabulary is not None:
        errors = evaluate_transcriber(opened, manifest, options, progress)
        _print_errors(errors, options.split)
    else:
        metrics = evaluate_classifier(opened, manifest, options, progress)
        _print_metrics(metrics, options.split)
    return 0


def _print_metrics(report: ClassifierReport, split: str) -> None:
    metrics = report.metrics
    print(f"{split}: {metrics.clips} clips, {report.skipped} skipped")
    for name, value in metrics.values.items():
        print(f"{name:16} {value:.5f}")
    if metrics.absent:
        print(f"{metrics.absent} of {report.classes} classes have no clip and are left out of mAP, mAUC and d_prime")
    print("\n".join(report.paths))


def _print_errors(report: TranscriberReport, split: str) -> None:
    print(f"{split}: {report.clips} clips, {report.skipped} skipped")
    for name, errors in report.errors.items():
        print(f"{name:16} {errors.rate:.5f}  {errors.edits} of {errors.length}")
    print(report.path)
