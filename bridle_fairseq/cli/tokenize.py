"""``bridle tokenize``: the codes of a manifest's clips. Processes share the work and survive a kill."""

from __future__ import annotations

import argparse
import os
from functools import partial

from bridle_fairseq.cli.arguments import (
    MODEL,
    add_batch_arguments,
    add_shard_argument,
    batch_options,
    read_manifest,
    split_of,
)
from bridle_fairseq.cli.sharded import print_outcome

HELP = "write the codes of a manifest's clips, as a memory-mapped dataset of fairseq"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle tokenize``."""
    parser.add_argument("checkpoint", help=f"the model 'bridle': {MODEL}")
    parser.add_argument("manifest", help="{split}.tsv: root folder, then path<TAB>size")
    parser.add_argument("--out", required=True, metavar="DIR", help="gets {split}.codes.{bin,idx,json}")
    add_batch_arguments(parser)
    add_shard_argument(parser)
    parser.add_argument(
        "--segment-seconds",
        type=float,
        metavar="S",
        help="sound: longer clips are divided into segments of this length (default: as the model was trained)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace codes of another checkpoint or manifest")


def run(args: argparse.Namespace) -> int:
    """Tokenize a shard; the process that finishes the last one writes the files."""
    from bridle_fairseq.data.artifacts.shard_run import parse_shard
    from bridle_fairseq.inference.codes import describe_codes, summary_text, tokenize_corpus
    from bridle_fairseq.open_model import open_model

    shard, options = parse_shard(args.shard), batch_options(args)
    manifest = read_manifest(args.manifest)
    opened = open_model(args.checkpoint, "codes", options.device)
    split = split_of(args.manifest)
    prefix = os.path.join(args.out, f"{split}.codes")
    info = describe_codes(opened.model, opened.inputs, manifest, args.checkpoint, args.segment_seconds)
    outcome = tokenize_corpus(opened.model, opened.inputs, manifest, prefix, info, options, shard, args.overwrite)
    complete = f"{prefix}.bin is complete already: codes of this checkpoint and manifest"
    print_outcome(outcome, split, complete, partial(summary_text, prefix=prefix), options.device)
    return 0
