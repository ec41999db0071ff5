#!/usr/bin/env python3
"""Codes of a corpus on a Ray cluster: those of `bridle tokenize`, in a folder of parquet files.

The columns are file (its name), row (its number in the manifest, the parquet file or the archive) and codes: N x K,
flattened. _settings.json has K (num_codebooks), their size, and the grid of a segment. Given again, the script computes
the blocks that are missing. All nodes need the package, and the same paths.

(A script named tokenize.py would hide Python's own module of that name from all scripts beside it.)
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

import cluster
import numpy as np
import pyarrow

from bridle_fairseq.data.artifacts.codes import CodesInfo
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.inference.codes import CodeMaker, describe_codes, segments_of_codes
from bridle_fairseq.inference.pipeline import SegmentReader
from bridle_fairseq.open_model import OpenedModel, open_model
from bridle_fairseq.utils.process import run_script


def load(args: argparse.Namespace, device: str) -> tuple[OpenedModel, CodesInfo]:
    """The model, and the description of its codes."""
    opened = open_model(args.model, "codes", device)
    no_rows = Manifest("", (), ())  # the input is compared by cluster.py
    return opened, describe_codes(opened.model, opened.inputs, no_rows, args.model, args.segment_seconds)


class Tokenizer(cluster.Worker):
    """An actor with a tokenizer."""

    column = "codes"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.opened, self.info = load(self.args, self.options.device)
        self.type = pyarrow.list_(pyarrow.uint8() if self.info.codebook_size <= 256 else pyarrow.uint16())

    def compute(self, manifest: Manifest, rows: range) -> tuple[dict[int, np.ndarray], list[tuple[int, str]]]:
        """See :meth:`cluster.Worker.compute`."""
        reader, options = self.modality.reader(self.opened.inputs), self.options
        with SegmentReader(manifest, reader, segments_of_codes(self.info), options.workers) as segments:
            result = CodeMaker(self.opened.model, segments, options.limits).make(rows)
        codes = np.split(result.arrays["codes"], np.cumsum(result.arrays["sizes"])[:-1])  # N K of each row
        bad = dict(result.skipped)
        return {row: codes[row - rows.start] for row in rows if row not in bad}, result.skipped


def run(args: argparse.Namespace) -> int:
    """Tokenize the corpus; the exit code."""
    opened, info = load(args, "cpu")  # finds mistakes before anything is started
    settings = dataclasses.asdict(info)
    del settings["manifest_sha256"]
    return cluster.run(Tokenizer, args, modality_of(opened.inputs), settings)


def main() -> int:
    """Parse the command line and run."""
    parser = cluster.script_parser(__doc__)
    parser.add_argument(
        "--segment-seconds",
        type=float,
        metavar="S",
        help="sound: longer clips are divided into segments of this length (default: as the model was trained)",
    )
    return run_script(run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
