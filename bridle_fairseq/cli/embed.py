"""``bridle embed``: a vector for each file, for people who just want vectors."""

from __future__ import annotations

import argparse
import os
import sys

from bridle_fairseq.cli.arguments import (
    MODEL,
    add_batch_arguments,
    add_chunk_arguments,
    add_layers_argument,
    batch_options,
    chunk_options,
)
from bridle_fairseq.nn.pooling_kinds import POOLINGS, POOLINGS_HELP
from bridle_fairseq.utils.errors import printable

HELP = "write a vector for each file as .npy, .csv or .parquet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle embed``."""
    parser.epilog = (
        "A file that cannot be used is reported and has no row. The exit code is 1 if more files than --max-skipped "
        "allows have none (the others are written nevertheless), and 2 if all have none."
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="files, folders (searched, sorted), or one manifest .tsv"
    )
    parser.add_argument("--model", required=True, metavar="MODEL", help=f"with an encoder: {MODEL}")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="x.npy (files x D float32; x.files.txt names the file of each row), x.csv (a line for each file), or "
        "x.parquet (columns file and embedding; needs the extra 'parquet'); replaced if it is there",
    )
    add_layers_argument(parser, "last")
    parser.add_argument(
        "--pooling",
        nargs="+",
        choices=POOLINGS,
        metavar="NAME",
        default=["mean"],
        help=f"{POOLINGS_HELP} (default: mean). Several poolings and layers are put beside one another",
    )
    add_chunk_arguments(parser)
    add_batch_arguments(parser, "exit with code 1", "files")


def run(args: argparse.Namespace) -> int:
    """Embed the files, write the vectors, report what has none."""
    from bridle_fairseq.data.manifests.skipped import above_limit
    from bridle_fairseq.data.modalities import modality_of
    from bridle_fairseq.inference.chunking import choose_chunking
    from bridle_fairseq.inference.embed import check_output, embed_files, list_files, write_vectors
    from bridle_fairseq.inference.extractors import EncoderFeatures, choose_layers
    from bridle_fairseq.open_model import open_model
    from bridle_fairseq.utils.files import check_writable

    options = batch_options(args)
    check_output(args.out)
    opened = open_model(args.model, "features", options.device)
    check_writable(os.path.dirname(os.path.abspath(args.out)))
    layers = choose_layers(args.layers, opened.model.encoder.depth)
    extractor = EncoderFeatures(opened.model, layers, list(dict.fromkeys(args.pooling)))
    chunking = choose_chunking(chunk_options(args), opened.model.front_end, opened.inputs)
    modality = modality_of(opened.inputs)
    files = list_files(args.files, modality, options.workers)
    if files.others:
        print(f"no {modality.files} by their endings: {files.others}", file=sys.stderr)
    vectors = embed_files(extractor, chunking, files, options)
    paths = write_vectors(vectors, args.out)
    for name, reason in vectors.skipped:
        print(f"skipped: {printable(name)}: {printable(reason)}", file=sys.stderr)
    used, skipped = len(vectors.names), len(vectors.skipped)
    missing = f"{skipped} file{'s' * (skipped != 1)} skipped"
    print(f"{', '.join(paths)}: {used} files x {vectors.values.shape[1]} float32, {missing}")
    too_many = above_limit(skipped, used + skipped, args.max_skipped)
    if too_many:
        print(
            f"bridle: error: {skipped} of {used + skipped} files are unusable, {too_many}; the others are written, see "
            "--max-skipped",
            file=sys.stderr,
        )
    return 1 if too_many else 0
