#!/usr/bin/env python3
"""Vectors of a corpus on a Ray cluster: those of `bridle embed`, in a folder of parquet files.

The columns are file (its name), row (its number in the manifest, the parquet file or the archive) and embedding (D
float32). Given again, the script computes the blocks that are missing. All nodes need the package, and the same paths.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import cluster
import numpy as np
import pyarrow

from bridle_fairseq.cli.arguments import add_chunk_arguments, add_layers_argument, chunk_options
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.inference.chunking import choose_chunking
from bridle_fairseq.inference.extractors import EncoderFeatures, choose_layers
from bridle_fairseq.inference.features import FeatureMaker
from bridle_fairseq.inference.pipeline import SegmentReader
from bridle_fairseq.nn.pooling_kinds import POOLINGS, POOLINGS_HELP
from bridle_fairseq.open_model import OpenedModel, open_model
from bridle_fairseq.utils.process import run_script


def load(args: argparse.Namespace, device: str) -> tuple[OpenedModel, EncoderFeatures, Any]:
    """The model, what is extracted, and how clips are divided."""
    opened = open_model(args.model, "features", device)
    layers = choose_layers(args.layers, opened.model.encoder.depth)
    extractor = EncoderFeatures(opened.model, layers, list(dict.fromkeys(args.pooling)))
    return opened, extractor, choose_chunking(chunk_options(args), opened.model.front_end, opened.inputs)


class Embedder(cluster.Worker):
    """An actor with an encoder."""

    column = "embedding"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _, self.extractor, self.chunking = load(self.args, self.options.device)
        self.type = pyarrow.list_(pyarrow.float32(), sum(array.width for array in self.extractor.arrays))

    def compute(self, manifest: Manifest, rows: range) -> tuple[dict[int, np.ndarray], list[tuple[int, str]]]:
        """See :meth:`cluster.Worker.compute`."""
        chunking, options = self.chunking, self.options
        with SegmentReader(manifest, chunking.reader, chunking, options.workers) as reader:
            maker = FeatureMaker(chunking.front_end, [self.extractor], reader, options.limits, device=options.device)
            result = maker.make(rows)
        values = np.concatenate([result.arrays[array.name] for array in self.extractor.arrays], axis=1)  # rows x D
        bad = dict(result.skipped)
        return {row: values[row - rows.start] for row in rows if row not in bad}, result.skipped


def run(args: argparse.Namespace) -> int:
    """Embed the corpus; the exit code."""
    opened, extractor, chunking = load(args, "cpu")  # finds mistakes before anything is started
    settings = {
        "model_sha256": opened.sha256,
        "embedding": [array.name for array in extractor.arrays],
        "width": sum(array.width for array in extractor.arrays),
        "chunks": chunking.layout,
    }
    return cluster.run(Embedder, args, modality_of(opened.inputs), settings)


def main() -> int:
    """Parse the command line and run."""
    parser = cluster.script_parser(__doc__)
    add_layers_argument(parser, "last")
    parser.add_argument(
        "--pooling", nargs="+", choices=POOLINGS, metavar="NAME", default=["mean"], help=f"{POOLINGS_HELP} (mean)"
    )
    add_chunk_arguments(parser)
    return run_script(run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
