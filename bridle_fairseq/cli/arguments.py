"""Arguments that several commands have, and the options of the library that they stand for."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from bridle_fairseq.data.modalities import CLASSES

MODEL = "a checkpoint, a folder of bridle export, bridle-small-audio, or owner/name of the Hugging Face Hub"

if TYPE_CHECKING:  # keeps --help fast: torch takes seconds to import
    from bridle_fairseq.data.manifests.manifest import Manifest
    from bridle_fairseq.inference.chunking import ChunkOptions
    from bridle_fairseq.inference.classify import ViewOptions
    from bridle_fairseq.inference.pipeline import BatchOptions
    from bridle_fairseq.inference.transcribe import DecodingOptions


def add_modality_argument(parser: argparse.ArgumentParser) -> None:
    """Which kind of files to look for."""
    parser.add_argument("--modality", choices=list(CLASSES), default="audio", help="what the files are (%(default)s)")


def add_max_skipped_argument(parser: argparse.ArgumentParser, above: str = "abort", what: str = "clips") -> None:
    """How many files may be unusable; what happens above the limit."""
    parser.add_argument(
        "--max-skipped",
        type=float,
        default=0.01,
        metavar="SHARE",
        help=f"{above} if more than this fraction of the {what}, and more than 10, is unusable (0.01)",
    )


def add_batch_arguments(parser: argparse.ArgumentParser, above: str = "abort", what: str = "clips") -> None:
    """How clips are read and batched, and where the model runs: :func:`batch_options`.

    ``above`` and ``what`` are those of :func:`add_max_skipped_argument`.
    """
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="clips of a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=3_200_000,
        metavar="N",
        help="sound: samples of a padded batch (default: %(default)s)",
    )
    add_device_argument(parser)
    add_max_skipped_argument(parser, above, what)
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="threads that read files")


def batch_options(args: argparse.Namespace) -> BatchOptions:
    """The options of :func:`add_batch_arguments`.

    Raises:
        InputError: numbers below 1, or a device that torch cannot use.
    """
    from bridle_fairseq.inference.pipeline import BatchOptions
    from bridle_fairseq.utils.device import choose_device

    device = choose_device(args.device)
    return BatchOptions(args.batch_size, args.max_tokens, args.workers, args.max_skipped, device)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Where the model runs."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")


def add_shard_argument(parser: argparse.ArgumentParser) -> None:
    """The share of the corpus that this process does: :func:`bridle_fairseq.data.artifacts.shard_run.parse_shard`."""
    parser.add_argument(
        "--shard", metavar="I/N", help="do only share I (from 0) of N; under torchrun, each rank does its own"
    )


def add_layers_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Blocks of the encoder: :func:`bridle_fairseq.inference.extractors.choose_layers`."""
    parser.add_argument(
        "--layers",
        nargs="+",
        default=[default],
        metavar="N",
        help=f"blocks of the encoder: numbers from 1, all, or last (default: {default}); the last one is normalized",
    )


def add_chunk_arguments(parser: argparse.ArgumentParser) -> None:
    """How long clips are divided: :func:`chunk_options`."""
    parser.add_argument(
        "--chunk-seconds",
        type=float,
        metavar="S",
        help="longer clips are encoded in chunks of this length (default: the crop length the model was trained with)",
    )
    parser.add_argument(
        "--overlap-seconds",
        type=float,
        metavar="S",
        help="overlap of neighbouring chunks (default: a quarter of a chunk)",
    )


def chunk_options(args: argparse.Namespace) -> ChunkOptions:
    """The options of :func:`add_chunk_arguments`."""
    from bridle_fairseq.inference.chunking import ChunkOptions

    return ChunkOptions(args.chunk_seconds, args.overlap_seconds)


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """Views of a video over which scores are averaged: :func:`view_options`."""
    parser.add_argument(
        "--clips", type=int, default=1, metavar="N", help="video: mean over N clips from a file's start to its end (1)"
    )
    parser.add_argument(
        "--crops", type=int, default=1, metavar="N", help="video: mean over N squares along the longer side (1)"
    )


def view_options(args: argparse.Namespace) -> ViewOptions:
    """The options of :func:`add_view_arguments`.

    Raises:
        InputError: numbers below 1.
    """
    from bridle_fairseq.inference.classify import ViewOptions

    return ViewOptions(args.clips, args.crops)


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    """How transcripts are decoded: :func:`decoding_options`."""
    group = parser.add_argument_group("transcripts (model 'bridle_ctc')")
    group.add_argument("--beam-size", type=int, metavar="N", help="beam search (default: greedy decoding)")
    group.add_argument("--lm", metavar="FILE", help="KenLM language model: of words with --lexicon, else of symbols")
    group.add_argument("--lexicon", metavar="FILE", help="word<TAB>symbols of each word that may occur")
    group.add_argument("--lm-weight", type=float, default=2.0, metavar="X", help="of the language model (%(default)s)")
    group.add_argument("--word-score", type=float, default=0.0, metavar="X", help="for each word (%(default)s)")


def decoding_options(args: argparse.Namespace) -> DecodingOptions:
    """The options of :func:`add_decoding_arguments`."""
    from bridle_fairseq.inference.transcribe import DecodingOptions

    return DecodingOptions(args.beam_size, args.lm, args.lexicon, args.lm_weight, args.word_score)


def read_manifest(path: str) -> Manifest:
    """The manifest at a path.

    Raises:
        InputError: it cannot be read, or files are missing.
    """
    from bridle_fairseq.data.manifests.manifest import Manifest

    manifest = Manifest.read(path)
    manifest.check_files()
    return manifest


def split_of(path: str) -> str:
    """Name of the split whose manifest this is: ``train`` of ``some/folder/train.tsv``."""
    return os.path.basename(path).removesuffix(".tsv")
