"""``bridle units``: convert codes to lines of units, and back without loss."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from bridle_fairseq.cli.arguments import add_shard_argument
from bridle_fairseq.cli.sharded import print_outcome
from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:  # keeps --help fast: torch takes seconds to import
    from bridle_fairseq.data.artifacts.sharding import ShardedJob
    from bridle_fairseq.units.sharding import UnitsSummary

HELP = "convert codes to units, the lines that language models and SentencePiece take, or back"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle units``."""
    parser.add_argument(
        "source",
        nargs="+",
        metavar="CODES",
        help="{split}.codes of `bridle tokenize`, several splits of one checkpoint; with --back {split}.units",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="gets the files of units (with --back, of codes)")
    parser.add_argument("--level", default="all", metavar="N", help="a level from 1, or all (%(default)s)")
    parser.add_argument(
        "--layout",
        choices=("interleaved", "flattened", "separate"),
        default="interleaved",
        help="all levels: each patch's codes together (default), one level after the other, or a folder for each",
    )
    parser.add_argument(
        "--format",
        choices=("km", "text", "fairseq"),
        default="km",
        help="km: numbers, as HuBERT's (default); text: a character each, for SentencePiece; fairseq: .bin, .idx",
    )
    parser.add_argument(
        "--dedup", action="store_true", help="write repeated units once, and their counts in {split}.counts"
    )
    parser.add_argument("--back", action="store_true", help="from units to codes")
    parser.add_argument("--manifest", metavar="TSV", help="check that they are of this manifest")
    parser.add_argument("--checkpoint", metavar="PT", help="check that they are of this checkpoint")
    add_shard_argument(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace units (with --back, codes) of other codes or settings"
    )


def run(args: argparse.Namespace) -> int:
    """Convert codes to units, or units to codes."""
    from bridle_fairseq.data.artifacts.shard_run import parse_shard
    from bridle_fairseq.units.convert import UnitOptions, restore_codes, write_units

    if args.manifest and len(args.source) > 1:
        raise InputError(f"--manifest with {len(args.source)} splits; expected one split, whose manifest it is")
    shard = parse_shard(args.shard)
    if args.back and shard.count > 1:
        raise InputError(f"--back with --shard {args.shard}; expected all rows at once")
    options = UnitOptions(args.level, args.layout, args.format, args.dedup, args.manifest, args.checkpoint)
    if args.back:
        for prefix, codes, rows in restore_codes(args.source, args.out, options, args.overwrite):
            print(f"{prefix}.bin, .idx, .json: codes of {rows} clips, {codes.num_codebooks} x {codes.codebook_size}")
        return 0
    for split, outcome in write_units(args.source, args.out, options, shard, args.overwrite):
        complete = f"{outcome.job.prefix}.json is complete already: units of these codes"
        print_outcome(outcome, split, complete, partial(_summary_text, job=outcome.job, split=split))
    return 0


def _summary_text(summary: UnitsSummary, job: ShardedJob, split: str) -> str:
    kept = f", {summary.units / max(summary.codes, 1):.1%} kept" if job.info.dedup else ""
    clips = f"{split}: {summary.rows} clips ({summary.empty} empty)"
    files = f"units: {', '.join(job.files())}; {job.prefix}.json"
    return f"{clips}, {summary.units} units of {job.info.scheme.size}{kept}\n{files}"
