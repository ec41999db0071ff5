"""``bridle features``: what the encoder makes of a manifest's clips, by any number of processes that may be killed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from bridle_fairseq.cli.corpus_run import add_batch_arguments, add_shard_argument, make_missing, open_corpus
from bridle_fairseq.utils.errors import InputError

HELP = "write features of a manifest's clips as memory-mapped .npy files, pooled or patch by patch"
POOLINGS = ("mean", "frequency", "class_token", "patches")
DTYPES = ("float16", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle features``."""
    parser.add_argument("checkpoint", help="checkpoint of the model 'bridle', 'bridle_classifier' or 'bridle_ctc'")
    parser.add_argument("manifest", help="{split}.tsv: root folder, then path<TAB>size")
    parser.add_argument("--out", required=True, metavar="DIR", help="gets {split}.features.json and .npy files")
    add_layers_argument(parser, "last")
    parser.add_argument(
        "--pooling",
        nargs="+",
        choices=POOLINGS,
        default=["mean"],
        help="mean of all patches (default), frequency (mean over time, frequency rows kept apart), class_token, or "
        "patches (no pooling)",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the files (default: %(default)s)")
    add_chunk_arguments(parser)
    add_batch_arguments(parser)
    add_shard_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace features of other settings")


def add_layers_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Which blocks of the encoder."""
    parser.add_argument(
        "--layers",
        nargs="+",
        default=[default],
        metavar="N",
        help=f"blocks of the encoder: numbers from 1, all, or last (default: {default}); the last one's is normalised",
    )


def add_chunk_arguments(parser: argparse.ArgumentParser) -> None:
    """How long clips are cut."""
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
        help="what neighbouring chunks have in common (default: a quarter of a chunk)",
    )


def run(args: argparse.Namespace) -> int:
    """Make the features of a shard; the process that finishes the last one writes the files."""
    shard, num_shards, manifest = open_corpus(args)
    from bridle_fairseq.data.artifacts.features import FeaturesJob
    from bridle_fairseq.inference.extractors import EncoderFeatures
    from bridle_fairseq.models.checkpoints import ENCODERS, load_model
    from bridle_fairseq.utils.device import choose_device
    from bridle_fairseq.utils.files import file_sha256

    device = choose_device(args.device)
    model, task = load_model(args.checkpoint, device, ENCODERS)
    extractor = EncoderFeatures(
        model, choose_layers(args.layers, model.encoder.depth), list(dict.fromkeys(args.pooling))
    )
    chunking = choose_chunking(args, model.front_end, task)
    split = Path(args.manifest).name.removesuffix(".tsv")
    prefix = os.path.join(args.out, f"{split}.features")
    info = describe(extractor.arrays, chunking, args.dtype, file_sha256(args.checkpoint), manifest)
    job = FeaturesJob(prefix, info, manifest, args.overwrite)
    if job.finished():
        print(f"{prefix}.json is complete already: features of this checkpoint and manifest")
        return 0
    todo = job.missing(shard, num_shards)
    clips, seconds = make_features(args, job, todo, chunking, [extractor], device, split)
    print(f"{split}: {clips} clips in {seconds:.1f} s, {clips / max(seconds, 1e-9):.1f} clips/s on {device}")
    summary = job.join()
    if summary is not None:
        _report(summary, job)
    elif not job.finished():
        left = len(job.missing())
        print(f"{split}: shard {shard} of {num_shards} is done; {left} of {len(job.blocks)} chunks are left to others")
    return 0


def choose_layers(texts: list[str], num_layers: int) -> list[int]:
    """Numbers of blocks, from what ``--layers`` says.

    Raises:
        InputError: no such block.
    """
    chosen: set[int] = set()
    for text in ",".join(texts).split(","):
        if text == "all":
            chosen |= set(range(1, num_layers + 1))
        elif text == "last":
            chosen.add(num_layers)
        elif text.isdecimal() and 1 <= int(text) <= num_layers:
            chosen.add(int(text))
        else:
            raise InputError(f"--layers has {text!r}; expected numbers from 1 to {num_layers}, all, or last")
    return sorted(chosen)


def choose_chunking(args: argparse.Namespace, front_end: Any, task: Any = None) -> Any:
    """The chunking of ``--chunk-seconds``, ``--overlap-seconds``.

    Raises:
        InputError: lengths that cannot work.
    """
    from bridle_fairseq.data.modality import modality_of
    from bridle_fairseq.inference.extractors import Chunking, Whole

    cfg = getattr(task, "cfg", None)
    modality = modality_of(cfg)
    if modality.name != "audio":
        segment = modality.segment(cfg, args.chunk_seconds)
        return Whole(front_end, modality.reader(cfg), modality.layout_of_codes(cfg, front_end, segment))
    rate = front_end.log_mel.sample_rate
    if args.chunk_seconds is None:
        chunk = int(getattr(getattr(task, "cfg", None), "max_sample_size", None) or 10.24 * rate)
    else:
        chunk = round(args.chunk_seconds * rate)
    overlap = chunk // 4 if args.overlap_seconds is None else round(args.overlap_seconds * rate)
    if chunk < 1:
        raise InputError(f"--chunk-seconds is {args.chunk_seconds}; expected more than 0")
    if not 0 <= overlap < chunk:
        raise InputError(
            f"--overlap-seconds is {args.overlap_seconds}; expected 0 or more, and less than the {chunk / rate:g} s of "
            "a chunk"
        )
    return Chunking.of_samples(front_end, chunk, overlap)


def describe(arrays: tuple[Any, ...], chunking: Any, dtype: str, checkpoint_sha256: str, manifest: Any) -> Any:
    """The :class:`FeaturesInfo` of these arrays."""
    from bridle_fairseq.data.artifacts.features import FeaturesInfo

    return FeaturesInfo(
        arrays=arrays,
        dtype=dtype,
        grid=chunking.layout,
        checkpoint_sha256=checkpoint_sha256,
        manifest_sha256=manifest.fingerprint(),
    )


def make_features(
    args: argparse.Namespace, job: Any, todo: list[int], chunking: Any, extractors: list[Any], device: Any, name: str
) -> tuple[int, float]:
    """Make and store these blocks; the number of their clips, and the seconds it took."""
    from bridle_fairseq.inference.extractors import FeatureMaker
    from bridle_fairseq.inference.pipeline import BatchLimits, SegmentReader

    info = job.info
    with SegmentReader(job.manifest, chunking.reader, chunking, args.workers) as reader:
        limits = BatchLimits(args.batch_size, args.max_tokens)
        maker = FeatureMaker(chunking.front_end, extractors, reader, limits, info.dtype, device)
        return make_missing(job, todo, maker.make, args.max_skipped, name)


def _report(summary: Any, job: Any) -> None:
    """What the finished files hold."""
    print(f"{summary.rows} clips, {summary.patches} patches, {len(summary.skipped)} clips skipped")
    for array in job.info.arrays:
        rows = summary.patches if array.pooling == "patches" else summary.rows
        print(f"{job.prefix}.{array.name}.npy: {rows} x {array.width} {job.info.dtype}")
    if summary.skipped:
        print(f"skipped: {job.prefix}.skipped.tsv; their pooled features are NaN, and they have no patches")
    print(f"index: {job.prefix}.json")
