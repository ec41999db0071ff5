"""``bridle similar``: the clips of an index most similar to others, by embeddings or by codes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridle_fairseq.cli.arguments import add_batch_arguments, batch_options
from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:  # keeps --help fast: torch takes seconds to import
    import numpy as np

    from bridle_fairseq.evaluation.retrieval import Bank
    from bridle_fairseq.inference.pipeline import BatchOptions

HELP = "the clips of an index most similar to a file or to one of its own, by embeddings or by codes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle similar``."""
    parser.add_argument(
        "index", help="folder of `bridle features` or `bridle tokenize`; of several splits, DIR/{split}.features"
    )
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="files, or rows of the index (numbers from 0)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="clips for each query (%(default)s)")
    parser.add_argument(
        "--manifest", metavar="TSV", help="of the index: gives the paths of its clips, so that they are recognized"
    )
    parser.add_argument("--checkpoint", metavar="MODEL", help="that made the index, for files that are not in it")
    parser.add_argument("--array", metavar="NAME", help="of several features, such as mean.layer4 (default: the first)")
    parser.add_argument("--exact", action="store_true", help="compare all clips, even if faiss is installed")
    add_batch_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print each query, and under it the most similar clips with their similarities."""
    options = batch_options(args)
    if args.top < 1:
        raise InputError(f"--top is {args.top}; expected at least 1")
    from bridle_fairseq.data.manifests.manifest import Manifest
    from bridle_fairseq.evaluation.retrieval import candidates_exactly, nearest_rows
    from bridle_fairseq.evaluation.similar import open_bank, query_vectors, rows_of_queries

    manifest = Manifest.read(args.manifest) if args.manifest else None
    bank = open_bank(args.index, args.array, manifest)
    rows = rows_of_queries(args.queries, bank, manifest)
    files = [query for query, row in zip(args.queries, rows, strict=True) if row is None]
    embedded = _embed(files, bank, args.checkpoint, options) if files else []
    vectors = query_vectors(args.queries, rows, bank, embedded)
    neighbours = nearest_rows(bank, vectors, args.top, rows, candidates_exactly if args.exact else None)
    for query, nearest in zip(args.queries, neighbours, strict=True):
        print(query)
        for row, similarity in nearest:
            print(f"  {similarity:.4f}  {manifest.path(row) if manifest else f'row {row}'}")
    return 0


def _embed(files: list[str], bank: Bank, checkpoint: str | None, options: BatchOptions) -> Sequence[np.ndarray]:
    from bridle_fairseq.evaluation.similar import embed_files
    from bridle_fairseq.exported.source import check_checkpoint
    from bridle_fairseq.open_model import open_model

    if not checkpoint:
        raise InputError(f"{files[0]}: not a row of the index; expected --checkpoint, the one that made it")
    check_checkpoint(f"{bank.prefix}.json", bank.what, bank.info.checkpoint_sha256, checkpoint)
    opened = open_model(checkpoint, "features" if bank.what == "features" else "codes", options.device)
    return embed_files(files, bank, opened.model, opened.inputs, options)
