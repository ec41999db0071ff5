"""``bridle features``: the features of a manifest's clips. Processes share the work and survive a kill."""

from __future__ import annotations

import argparse
import os
from functools import partial

from bridle_fairseq.cli.arguments import (
    MODEL,
    add_batch_arguments,
    add_chunk_arguments,
    add_layers_argument,
    add_shard_argument,
    batch_options,
    chunk_options,
    read_manifest,
    split_of,
)
from bridle_fairseq.cli.sharded import print_outcome
from bridle_fairseq.nn.pooling_kinds import POOLINGS, POOLINGS_HELP

HELP = "write features of a manifest's clips as memory-mapped .npy files, pooled or patch by patch"
DTYPES = ("float16", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle features``."""
    parser.add_argument("checkpoint", help=f"the model 'bridle', 'bridle_classifier' or 'bridle_ctc': {MODEL}")
    parser.add_argument("manifest", help="{split}.tsv: root folder, then path<TAB>size")
    parser.add_argument("--out", required=True, metavar="DIR", help="gets {split}.features.json and .npy files")
    add_layers_argument(parser, "last")
    parser.add_argument(
        "--pooling",
        nargs="+",
        choices=(*POOLINGS, "patches"),
        metavar="NAME",
        default=["mean"],
        help=f"{POOLINGS_HELP}; patches: no pooling (default: mean)",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the files (default: %(default)s)")
    add_chunk_arguments(parser)
    add_batch_arguments(parser)
    add_shard_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace features of other settings")


def run(args: argparse.Namespace) -> int:
    """Compute the features of a shard; the process that finishes the last one writes the files."""
    from bridle_fairseq.data.artifacts.shard_run import parse_shard
    from bridle_fairseq.inference.chunking import choose_chunking
    from bridle_fairseq.inference.extractors import EncoderFeatures, choose_layers
    from bridle_fairseq.inference.features import summary_text, write_features
    from bridle_fairseq.open_model import open_model

    shard, options = parse_shard(args.shard), batch_options(args)
    manifest = read_manifest(args.manifest)
    opened = open_model(args.checkpoint, "features", options.device)
    layers = choose_layers(args.layers, opened.model.encoder.depth)
    extractor = EncoderFeatures(opened.model, layers, list(dict.fromkeys(args.pooling)))
    chunking = choose_chunking(chunk_options(args), opened.model.front_end, opened.inputs)
    split = split_of(args.manifest)
    prefix = os.path.join(args.out, f"{split}.features")
    outcome = write_features(
        extractor, chunking, manifest, prefix, opened.sha256, options, args.dtype, shard, args.overwrite, split
    )
    complete = f"{prefix}.json is complete already: features of this checkpoint and manifest"
    text = partial(summary_text, prefix=prefix, info=outcome.job.info)
    print_outcome(outcome, split, complete, text, options.device)
    return 0
