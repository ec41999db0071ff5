"""``bridle probe``: what a checkpoint's features are worth on labelled clips, beside what comes without pretraining."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from bridle_fairseq.cli.corpus_run import add_batch_arguments, check_batch_arguments, progress_bar
from bridle_fairseq.cli.features import add_chunk_arguments, add_layers_argument, choose_chunking, choose_layers
from bridle_fairseq.utils.errors import InputError

HELP = "linear and nearest-neighbour probes of frozen features, beside an untrained encoder and statistics of the input"
SPLITS = ("train", "valid", "test")
POOLINGS = ("mean", "frequency", "class_token")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle probe``."""
    parser.add_argument(
        "checkpoint",
        help="checkpoint of the model 'bridle', 'bridle_classifier' or 'bridle_ctc', or a folder into which bridle "
        "features wrote features of all splits",
    )
    parser.add_argument("data", help="folder with labels.csv and, for each split, {split}.tsv and {split}.lbl")
    parser.add_argument("--out", metavar="DIR", help="gets probe.json and probe.csv")
    for split, text in zip(SPLITS, ("is fitted", "is chosen", "is tested, once"), strict=True):
        parser.add_argument(f"--{split}", default=split, metavar="SPLIT", help=f"split on which it {text} ({split})")
    add_layers_argument(parser, "all")
    parser.add_argument(
        "--pooling",
        nargs="+",
        choices=POOLINGS,
        help="ways to pool patches (default: mean and frequency; of images and video: mean and class_token)",
    )
    add_probe_arguments(parser)
    parser.add_argument(
        "--no-baselines", action="store_true", help="leave out the untrained encoder and statistics of the input"
    )
    add_chunk_arguments(parser)
    add_batch_arguments(parser)


def add_probe_arguments(parser: argparse.ArgumentParser) -> None:
    """Which probes, and what they draw at random."""
    parser.add_argument(
        "--probes", nargs="+", choices=("linear", "knn"), default=["linear", "knn"], help="default: both"
    )
    parser.add_argument(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="draws of the test rows for an interval (1000; 0: none)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of those draws and of the untrained encoder (1)")


def run(args: argparse.Namespace) -> int:
    """Make or read the features, probe them, print the table."""
    check_batch_arguments(args)
    if args.resamples < 0:
        raise InputError(f"--resamples is {args.resamples}; expected 0 or more")
    from bridle_fairseq.evaluation.probe_table import compare, table, write

    splits = [getattr(args, split) for split in SPLITS]
    data = {split: _read_split(args.data, split) for split in dict.fromkeys(splits)}
    if os.path.isdir(args.checkpoint):
        found, about = _stored(args, data)
    else:
        found, about = _made(args, data)
    features, labels = _without_skipped(found, data, splits)
    multi = labels.train.ndim == 2
    _check_classes(labels, data[splits[0]][1].classes, args.data, splits)
    options = {"resamples": args.resamples, "seed": args.seed}
    rows = compare(features, labels, args.probes, say=lambda text: print(text, flush=True), **options)
    metric = "mAP" if multi else "accuracy"
    clips = {split: len(part) for split, part in zip(splits, labels, strict=True)}
    chance = "" if multi else f", always the most frequent class: {_most_frequent(labels):.3f}"
    said = ", ".join(f"{count} {split}" for split, count in clips.items())
    print(f"\n{table(rows, f'{metric} ({said} clips{chance})')}")
    if args.out:
        write(rows, {**about, "data": args.data, "metric": metric, "clips": clips, "seed": args.seed}, args.out)
        print(f"\n{Path(args.out, 'probe.json')}, {Path(args.out, 'probe.csv')}")
    return 0


def _read_split(folder: str, split: str) -> tuple[Any, Any]:
    """A split's manifest and labels."""
    from bridle_fairseq.data.manifests.labels import Classes, Labels
    from bridle_fairseq.data.manifests.manifest import Manifest

    manifest = Manifest.read(os.path.join(folder, f"{split}.tsv"))
    classes = Classes.read(os.path.join(folder, "labels.csv"))
    return manifest, Labels.read(os.path.join(folder, f"{split}.lbl"), manifest, classes)


def _made(args: argparse.Namespace, data: dict[str, tuple[Any, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Features of all splits by a checkpoint's encoder and the baselines; and what they are from."""
    from bridle_fairseq.inference.baselines import baseline_of
    from bridle_fairseq.inference.extractors import EncoderFeatures, untrained_twin
    from bridle_fairseq.models.checkpoints import ENCODERS, load_model
    from bridle_fairseq.utils.device import choose_device
    from bridle_fairseq.utils.files import file_sha256

    for manifest, _ in data.values():
        manifest.check_files()
    device = choose_device(args.device)
    model, task = load_model(args.checkpoint, device, ENCODERS)
    layers = choose_layers(args.layers, model.encoder.depth)
    poolings = list(dict.fromkeys(args.pooling or default_poolings(model)))
    extractors: list[Any] = [EncoderFeatures(model, layers, poolings)]
    if not args.no_baselines:
        extractors.append(EncoderFeatures(untrained_twin(model, args.seed), layers, poolings, "untrained"))
        extractors.append(baseline_of(model))
    chunking = choose_chunking(args, model.front_end, task)
    found = {
        split: extract(args, manifest, chunking, extractors, device, split) for split, (manifest, _) in data.items()
    }
    return found, {"checkpoint": args.checkpoint, "checkpoint_sha256": file_sha256(args.checkpoint)}


def default_poolings(model: Any) -> tuple[str, ...]:
    """Ways to pool patches that suit a model's modality."""
    return ("mean", "class_token") if model.front_end.rows is None else ("mean", "frequency")


def extract(
    args: argparse.Namespace, manifest: Any, chunking: Any, extractors: list[Any], device: Any, name: str
) -> dict[Any, Any]:
    """Features of a manifest's rows in memory: array -> n x d float32, NaN where a row could not be read.

    Raises:
        InputError: too many rows could not be read.
    """
    import numpy as np

    from bridle_fairseq.data.artifacts.sharding import plan_blocks
    from bridle_fairseq.data.manifests.skipped import SkipLog
    from bridle_fairseq.inference.extractors import FeatureMaker
    from bridle_fairseq.inference.pipeline import BatchLimits, SegmentReader

    skips = SkipLog(manifest, os.path.join(args.out, f"{name}.skipped.tsv") if args.out else None)
    results = []
    with (
        SegmentReader(manifest, chunking.reader, chunking, args.workers) as reader,
        progress_bar(len(manifest), name) as bar,
    ):
        limits = BatchLimits(args.batch_size, args.max_tokens)
        maker = FeatureMaker(chunking.front_end, extractors, reader, limits, device=device)
        for rows in plan_blocks(manifest.sizes):
            results.append(maker.make(rows, bar.update))
            for row, reason in results[-1].skipped:
                skips.add(row, reason)
            skips.check(args.max_skipped)
    return {array: np.concatenate([result.arrays[array.name] for result in results]) for array in maker.arrays}


def _stored(args: argparse.Namespace, data: dict[str, tuple[Any, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pooled features of all splits that ``bridle features`` has written; and what they are from."""
    import numpy as np

    from bridle_fairseq.data.artifacts.features import PATCHES, Features

    found: dict[str, Any] = {}
    first = None
    for split, (manifest, _) in data.items():
        stored = Features(os.path.join(args.checkpoint, f"{split}.features"), manifest)
        first = first or stored
        made_by = stored.info.checkpoint_sha256
        if (stored.info.arrays, made_by) != (first.info.arrays, first.info.checkpoint_sha256):
            raise InputError(
                f"{stored.prefix}.json: features of other layers, poolings or another checkpoint than those of "
                f"{first.prefix}.json; expected the same"
            )
        pooled = [array for array in stored.info.arrays if array.pooling != PATCHES]
        if not pooled:
            raise InputError(f"{stored.prefix}.json: features of patches only; expected pooled ones, to probe")
        found[split] = {array: np.asarray(stored[array.name], dtype=np.float32) for array in pooled}
    assert first is not None
    return found, {"features": args.checkpoint, "checkpoint_sha256": first.info.checkpoint_sha256}


def _without_skipped(
    found: dict[str, Any], data: dict[str, tuple[Any, Any]], splits: list[str]
) -> tuple[dict[Any, Any], Any]:
    """Features by array, and labels, of the rows that could be read; labels are n x C unless each row has one class."""
    import numpy as np

    from bridle_fairseq.evaluation.probe import Split
    from bridle_fairseq.evaluation.probe_table import finite_rows

    single = all(labels.single for _, labels in data.values())
    kept = {split: np.flatnonzero(finite_rows(found[split])) for split in splits}

    def of_split(split: str) -> Any:
        labels = data[split][1]
        return np.array([labels[row][0] if single else labels.multi_hot(row) for row in kept[split].tolist()])

    features = {array: Split(*(found[split][array][kept[split]] for split in splits)) for array in found[splits[0]]}
    return features, Split(*(of_split(split) for split in splits))


def _check_classes(labels: Any, classes: Any, folder: str, splits: list[str]) -> None:
    import numpy as np

    for split, part in zip(splits, labels, strict=True):
        if len(part) == 0:
            raise InputError(f"{os.path.join(folder, split)}.tsv: not one clip can be read; expected some")
    trained = np.flatnonzero(labels.train.any(0)) if labels.train.ndim == 2 else np.unique(labels.train)
    if len(trained) < 2:
        names = ", ".join(repr(classes.ids[number]) for number in trained) or "none"
        raise InputError(f"{os.path.join(folder, splits[0])}.lbl: {len(trained)} class ({names}); expected 2 at least")


def _most_frequent(labels: Any) -> float:
    import numpy as np

    values, counts = np.unique(labels.train, return_counts=True)
    return float((labels.test == values[counts.argmax()]).mean())
