"""``bridle evaluate``: how good a model is on a labelled manifest, by the metrics of its own validation."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from pathlib import Path
from typing import Any

from bridle_fairseq.cli.transcripts import add_decoding_arguments, evaluate_transcripts, refuse_decoding
from bridle_fairseq.cli.views import add_view_arguments, reader_of_views
from bridle_fairseq.utils.errors import InputError

HELP = "metrics of a classifier or a transcriber on a labelled manifest, and tables of its predictions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle evaluate``."""
    parser.add_argument("checkpoint", help="checkpoint of the model 'bridle_classifier' or 'bridle_ctc'")
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
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    parser.add_argument(
        "--max-skipped", type=float, default=0.01, metavar="SHARE", help="clips that may be unreadable (0.01)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the metrics and write the tables."""
    from bridle_fairseq.data.manifests.manifest import Manifest

    if args.batch_size < 1 or args.workers < 0:
        raise InputError(
            f"--batch-size is {args.batch_size} and --workers {args.workers}; expected 1 or more and 0 or more"
        )
    manifest = Manifest.read(args.manifest)
    manifest.check_files()
    from bridle_fairseq.data.modality import modality_of
    from bridle_fairseq.models.checkpoints import load_model
    from bridle_fairseq.utils.device import choose_device

    model, task = load_model(args.checkpoint, choose_device(args.device), ("bridle_classifier", "bridle_ctc"))
    reader = reader_of_views(args, modality_of(task.cfg), task.cfg)
    split = Path(args.manifest).name.removesuffix(".tsv")
    folder = args.out or os.path.join(os.path.dirname(os.path.abspath(args.checkpoint)), "evaluation")
    if hasattr(model, "frame_head"):
        return evaluate_transcripts(args, manifest, model, task, folder, split, _progress)
    refuse_decoding(args)
    return _evaluate_classes(args, manifest, model, task, reader, folder, split)


def _evaluate_classes(
    args: argparse.Namespace, manifest: Any, model: Any, task: Any, reader: Any, folder: str, split: str
) -> int:
    from bridle_fairseq.evaluation.classification import evaluate, write_tables
    from bridle_fairseq.inference.classify import score_dataset, score_views

    labels_path = args.labels or args.manifest.removesuffix(".tsv") + ".lbl"
    if not os.path.isfile(labels_path):
        raise InputError(f"{labels_path}: no such labels; expected the class ids of each row of {args.manifest}")
    classes = task.classes
    classes.source = args.checkpoint
    dataset = _dataset(manifest, labels_path, classes, task.cfg, os.path.join(folder, f"{split}.skipped.tsv"))
    if args.clips == args.crops == 1:
        rows, scores = score_dataset(model, dataset, task.cfg.multi_label, args.batch_size, args.workers, _progress)
    else:
        options = task.cfg.multi_label, args.batch_size, max(1, args.workers)
        rows, scores, bad = score_views(model, manifest, reader, *options)
        for row, reason in bad.items():
            dataset.skips.add(row, reason)
    dataset.skips.check(args.max_skipped)
    if len(rows) == 0:
        raise InputError(f"{args.manifest}: no clip could be read; expected one at least")
    found = evaluate(scores, dataset.targets(rows.tolist()).numpy())
    paths = [_write_predictions(folder, split, dataset, classes, rows, scores)]
    paths += write_tables(folder, split, found, classes)
    print(f"{split}: {found.clips} clips, {len(manifest) - found.clips} skipped")
    for name, value in found.values.items():
        print(f"{name:16} {value:.5f}")
    if found.absent:
        print(f"{found.absent} of {len(classes)} classes have no clip and are left out of mAP, mAUC and d_prime")
    print("\n".join(paths))
    return 0


def _dataset(manifest: Any, labels_path: str, classes: Any, cfg: Any, skipped_path: str) -> Any:
    """The clips as validation sees them; those that cannot be read are listed in a file."""
    from bridle_fairseq.data.manifests.labels import Labels
    from bridle_fairseq.data.manifests.skipped import SkipLog
    from bridle_fairseq.data.modality import modality_of
    from bridle_fairseq.tasks.datasets import LabelledMedia

    labels = Labels.read(labels_path, manifest, classes, cfg.multi_label)
    media = modality_of(cfg).dataset(manifest, cfg, skips=SkipLog(manifest, skipped_path))
    return LabelledMedia(media, labels=labels, multi_label=cfg.multi_label)


def _progress(batches: Any) -> Any:
    from tqdm import tqdm

    return tqdm(batches, desc="evaluate", unit=" batches", disable=not sys.stderr.isatty())


def _write_predictions(folder: str, split: str, dataset: Any, classes: Any, rows: Any, scores: Any) -> str:
    """``{split}.predictions.csv``: a line a clip with its true and predicted classes and a score of each class."""
    from bridle_fairseq.evaluation.classification import THRESHOLD
    from bridle_fairseq.utils.files import atomic_text

    path = os.path.join(folder, f"{split}.predictions.csv")
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "path", "true", "predicted", *classes.ids])
        for row, of_row in zip(rows.tolist(), scores, strict=True):
            chosen = (of_row >= THRESHOLD).nonzero()[0].tolist() if dataset.multi_label else [int(of_row.argmax())]
            names = [",".join(classes.ids[number] for number in some) for some in (dataset.labels[row], chosen)]
            values = [f"{score:.6g}" for score in of_row.tolist()]
            writer.writerow([row, dataset.manifest.relative_path(row), *names, *values])
    return path
