"""``bridle units``: codes as lines of units, and lines of units as codes again, without loss."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from bridle_fairseq.cli.corpus_run import add_shard_argument, read_shard
from bridle_fairseq.utils.errors import InputError

HELP = "write codes as units, the lines that language models and SentencePiece take; or turn them into codes again"


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
        "--dedup", action="store_true", help="write repeated units once, and how often they come in {split}.counts"
    )
    parser.add_argument("--back", action="store_true", help="from units to codes")
    parser.add_argument("--manifest", metavar="TSV", help="see that they are of this manifest")
    parser.add_argument("--checkpoint", metavar="PT", help="see that they are of this checkpoint")
    add_shard_argument(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace units (with --back, codes) of other codes or settings"
    )


def run(args: argparse.Namespace) -> int:
    """Units of codes, or codes of units."""
    if args.manifest and len(args.source) > 1:
        raise InputError(f"--manifest with {len(args.source)} splits; expected one split, whose manifest it is")
    shard, num_shards = read_shard(args.shard)
    if args.back:
        if num_shards > 1:
            raise InputError(f"--back with --shard {args.shard}; expected all rows at once")
        return _back(args)
    return _units(args, shard, num_shards)


def _units(args: argparse.Namespace, shard: int, num_shards: int) -> int:
    from bridle_fairseq.data.artifacts.codes import CachedCodes
    from bridle_fairseq.units.files import UnitsInfo
    from bridle_fairseq.units.sharding import UnitsJob, make_units

    corpora = []
    for path in args.source:
        prefix = prefix_of(path, ".codes")
        codes = CachedCodes(prefix)
        _check(args, prefix, "codes", codes.info)
        level = args.level if args.level == "all" or not args.level.isdecimal() else str(int(args.level))
        layout = args.layout if level == "all" else "separate"
        corpora.append((prefix, codes, UnitsInfo(codes.info, len(codes), level, layout, args.format, args.dedup)))
    _check_alike([(f"{prefix}.json", info) for prefix, _, info in corpora], args.out, args.overwrite)
    for prefix, codes, info in corpora:
        split = os.path.basename(prefix).removesuffix(".codes")
        job = UnitsJob(os.path.join(args.out, f"{split}.units"), codes, info, args.overwrite)
        if job.finished():
            print(f"{job.prefix}.json is complete already: units of these codes")
            continue
        make_units(job, job.missing(shard, num_shards))
        summary = job.join()
        if summary is not None:
            _report(split, summary, job)
        elif not job.finished():
            left, of = len(job.missing()), len(job.blocks)
            print(f"{split}: shard {shard} of {num_shards} is done; {left} of {of} chunks are left to others")
    return 0


def _back(args: argparse.Namespace) -> int:
    from bridle_fairseq.units.files import read_units_info, write_codes

    prefixes = [prefix_of(path, ".units") for path in args.source]
    infos = [read_units_info(prefix) for prefix in prefixes]
    for prefix, info in zip(prefixes, infos, strict=True):
        _check(args, prefix, "units", info.codes)
    for prefix in prefixes:
        codes_prefix, codes, rows = write_codes(prefix, args.out, args.overwrite)
        print(f"{codes_prefix}.bin, .idx, .json: codes of {rows} clips, {codes.num_codebooks} x {codes.codebook_size}")
    return 0


def prefix_of(path: str, suffix: str) -> str:
    """The path of files without their endings: ``train.codes`` of itself, ``train.codes.json`` or ``train.codes.bin``.

    Raises:
        InputError: it is not called so.
    """
    for ending in (".json", ".bin", ".idx"):
        path = path.removesuffix(ending)
    if not path.endswith(suffix):
        raise InputError(f"{path}: expected files called {{split}}{suffix}.json and so on")
    return path


def _check(args: argparse.Namespace, prefix: str, what: str, codes: Any) -> None:
    """See that they are of the manifest and of the checkpoint that the user names."""
    if args.manifest:
        from bridle_fairseq.data.artifacts.provenance import check_manifest
        from bridle_fairseq.data.manifests.manifest import Manifest

        check_manifest(prefix, what, codes.manifest_sha256, Manifest.read(args.manifest))
    if args.checkpoint:
        from bridle_fairseq.data.artifacts.provenance import check_checkpoint

        check_checkpoint(f"{prefix}.json", what, codes.checkpoint_sha256, args.checkpoint)


def _check_alike(infos: list[tuple[str, Any]], out: str, overwrite: bool) -> None:
    """See that all splits, and those in the folder already, have units of one kind: a dictionary serves all of them."""
    from bridle_fairseq.units.files import check_alike, read_units_info, units_summary

    mine = {os.path.basename(path).removesuffix(".codes.json") for path, _ in infos}
    there = [] if overwrite else sorted(Path(out).glob("*.units.json"))
    others = [path for path in there if path.name.removesuffix(".units.json") not in mine]
    found = [*infos, *((str(path), read_units_info(str(path).removesuffix(".json"))) for path in others)]
    first_path, first = found[0]
    for path, info in found[1:]:
        check_alike(path, units_summary(info), first_path, units_summary(first))


def _report(split: str, summary: Any, job: Any) -> None:
    """What the finished files hold."""
    scheme = job.info.scheme
    kept = f", {summary.units / max(summary.codes, 1):.1%} kept" if job.info.dedup else ""
    print(f"{split}: {summary.rows} clips ({summary.empty} empty), {summary.units} units of {scheme.size}{kept}")
    print(f"units: {', '.join(job.files())}; {job.prefix}.json")
