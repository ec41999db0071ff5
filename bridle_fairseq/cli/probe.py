"""``bridle probe``: the accuracy of a checkpoint's frozen features on labelled clips, beside baselines."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridle_fairseq.cli.arguments import (
    MODEL,
    add_batch_arguments,
    add_chunk_arguments,
    add_layers_argument,
    batch_options,
    chunk_options,
)
from bridle_fairseq.nn.pooling_kinds import POOLINGS, POOLINGS_HELP, PROBED_PIXELS, PROBED_SOUND
from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:  # keeps --help fast: torch takes seconds to import
    import numpy as np

    from bridle_fairseq.data.artifacts.features import FeatureArray
    from bridle_fairseq.evaluation.probe_data import Arrays, LabelledSplit
    from bridle_fairseq.inference.chunking import Chunking, WholeClip
    from bridle_fairseq.inference.extractors import Extractor
    from bridle_fairseq.inference.pipeline import BatchOptions

HELP = "linear and nearest-neighbour probes of frozen features, beside an untrained encoder and statistics of the input"
SPLITS = ("train", "valid", "test")
PROBES = ("linear", "ridge", "knn", "attentive")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle probe``."""
    parser.add_argument(
        "checkpoint",
        help=f"the model 'bridle', 'bridle_classifier' or 'bridle_ctc': {MODEL}; or a folder into which bridle "
        "features wrote features of all splits",
    )
    parser.add_argument(
        "data",
        help="folder with labels.csv and, for each split, {split}.tsv and {split}.lbl; without test.tsv, folds of "
        "train are tested",
    )
    parser.add_argument("--out", metavar="DIR", help="gets probe.json and probe.csv")
    for split, text in zip(SPLITS, ("is fitted", "is chosen", "is tested, once"), strict=True):
        parser.add_argument(f"--{split}", default=split, metavar="SPLIT", help=f"split on which it {text} ({split})")
    add_layers_argument(parser, "all")
    parser.set_defaults(layers=None)
    parser.add_argument(
        "--pooling",
        nargs="+",
        choices=POOLINGS,
        metavar="NAME",
        help=f"{POOLINGS_HELP} (default: {', '.join(PROBED_SOUND)}; of images and video: {', '.join(PROBED_PIXELS)})",
    )
    parser.add_argument(
        "--probes",
        nargs="+",
        choices=PROBES,
        default=["linear", "knn"],
        help="linear: logistic regression; ridge: the fast linear probe, in closed form; attentive: a "
        "learned query over all patches, of the last layer unless --layers says otherwise (default: linear and knn)",
    )
    parser.add_argument(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="bootstrap resamples of the test rows, for an interval (1000; 0: none)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the resamples and of the untrained encoder (1)")
    parser.add_argument(
        "--no-baselines", action="store_true", help="leave out the untrained encoder and statistics of the input"
    )
    parser.add_argument(
        "--against",
        metavar="MODEL",
        help="another encoder, given like the first: it is probed on the same clips, and the difference is printed "
        "with its interval",
    )
    add_chunk_arguments(parser)
    add_batch_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Compute or read the features, probe them, print the table."""
    from bridle_fairseq.evaluation import paired
    from bridle_fairseq.evaluation.probe_data import probe_data, read_labelled_splits
    from bridle_fairseq.evaluation.probe_folds import cross_validate
    from bridle_fairseq.evaluation.probe_table import compare, table, write
    from bridle_fairseq.utils.files import check_writable

    options = batch_options(args)
    if args.resamples < 0:
        raise InputError(f"--resamples is {args.resamples}; expected 0 or more")
    names, folds = _split_names(args)
    splits = read_labelled_splits(args.data, names)
    if args.out:
        check_writable(args.out)
    if "linear" in args.probes:
        import sklearn  # noqa: F401  (the light install lacks it: said before any features are computed)
    features, about = _features(args, splits, options)
    data = probe_data(features, splits, names, args.data)
    say = partial(print, flush=True)
    if folds:
        rows, number = cross_validate(data, args.probes, names[1] != names[0], args.seed, say, options.device)
    else:
        more = {"resamples": args.resamples, "seed": args.seed, "device": options.device}
        rows = compare(data.features, data.labels, args.probes, say, **more)
    metric = "mAP" if data.multi_label else "accuracy"
    clips = {name: len(labels) for name, labels in zip(names, data.labels, strict=True)}
    for name, usable in clips.items():
        listed = len(splits[name].manifest)
        if usable < listed:
            print(f"{name}: {listed - usable} of {listed} clips cannot be read", file=sys.stderr)
    majority = "" if data.multi_label else f", always the most frequent class: {data.majority_accuracy():.3f}"
    counts = ", ".join(f"{count} {name}" for name, count in clips.items())
    if folds:
        about["cross_validation"] = {"split": names[0], "folds": number}
        counts += f"; no {args.test}.tsv, so test is the mean of a cross-validation over {number} folds of {names[0]}"
    print(f"\n{table(rows, f'{metric} ({counts} clips{majority})')}")
    compared = paired.comparisons(rows, data.multi_label, args.resamples, args.seed) if args.resamples else []
    if compared:
        print(f"\n{paired.text(compared, metric)}")
    if args.out:
        about |= {"data": args.data, "metric": metric, "clips": clips, "seed": args.seed}
        write(rows, {**about, "differences": [one.fields() for one in compared]}, args.out)
        print(f"\n{Path(args.out, 'probe.json')}, {Path(args.out, 'probe.csv')}")
    return 0


def _split_names(args: argparse.Namespace) -> tuple[list[str], bool]:
    """Names of the three splits, and whether folds of the first one are tested, for lack of a test split."""
    names = [getattr(args, split) for split in SPLITS]
    there = [os.path.exists(os.path.join(args.data, f"{name}.tsv")) for name in names]
    if there[2] or not there[0] or args.test != SPLITS[2]:
        return names, False
    return [names[0], names[1] if there[1] else names[0], names[0]], True


def _features(
    args: argparse.Namespace, splits: dict[str, LabelledSplit], options: BatchOptions
) -> tuple[Mapping[str, Arrays], dict[str, Any]]:
    """Features of all splits, and where they are from."""
    from bridle_fairseq.evaluation.paired import AGAINST, ENCODER
    from bridle_fairseq.evaluation.probe_data import extract_splits, is_features, read_stored_splits, renamed

    sources = {ENCODER: args.checkpoint} | ({AGAINST: args.against} if args.against else {})
    models = {name: source for name, source in sources.items() if not is_features(source)}
    for split in splits.values() if models else ():
        split.manifest.check_files()
    # all models are opened first: a mistake is said before any features are computed
    opened = {name: _open(args, source, name, options) for name, source in models.items()}
    features: dict[str, dict[FeatureArray, np.ndarray]] = {name: {} for name in splits}
    sha256 = {}
    for name, source in sources.items():
        if name in opened:
            extractors, chunking, sha256[name] = opened[name]
            skipped = args.out if name == ENCODER else None
            more = extract_splits(extractors, chunking, splits, options, skipped)
        else:
            more, sha256[name] = read_stored_splits(source, splits, _wants_pooled(args), _wants_patches(args))
            more = renamed(more, AGAINST) if name == AGAINST else more
        for split_name, arrays in more.items():
            features[split_name].update(arrays)
    about = {"checkpoint" if ENCODER in opened else "features": args.checkpoint, "checkpoint_sha256": sha256[ENCODER]}
    if args.against:
        about |= {"against": args.against, "against_sha256": sha256[AGAINST]}
    return features, about


def _open(
    args: argparse.Namespace, source: str, name: str, options: BatchOptions
) -> tuple[list[Extractor], Chunking | WholeClip, str]:
    """Extractors of a model's encoder, for the first one with the baselines; the chunking; the sha256 of the model."""
    from bridle_fairseq.evaluation.paired import ENCODER
    from bridle_fairseq.evaluation.probe_data import probe_extractors
    from bridle_fairseq.inference.chunking import choose_chunking
    from bridle_fairseq.inference.extractors import choose_layers, default_poolings
    from bridle_fairseq.open_model import open_model

    opened = open_model(source, "features", options.device)
    model = opened.model
    layers = choose_layers(args.layers or ["all"], model.encoder.depth)
    poolings = list(dict.fromkeys(args.pooling or default_poolings(model))) if _wants_pooled(args) else []
    patch_layers = choose_layers(args.layers or ["last"], model.encoder.depth) if _wants_patches(args) else []
    baselines = name == ENCODER and not args.no_baselines
    extractors = probe_extractors(model, layers, poolings, args.seed, baselines, name, patch_layers)
    return extractors, choose_chunking(chunk_options(args), model.front_end, opened.inputs), opened.sha256


def _wants_pooled(args: argparse.Namespace) -> bool:
    return set(args.probes) != {"attentive"}


def _wants_patches(args: argparse.Namespace) -> bool:
    return "attentive" in args.probes
