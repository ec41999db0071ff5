"""``bridle tokenize``: the codes of a manifest's clips, by any number of processes, each of which may be killed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from bridle_fairseq.cli.corpus_run import add_batch_arguments, add_shard_argument, make_missing, open_corpus
from bridle_fairseq.utils.errors import InputError

HELP = "write the codes of a manifest's clips, as a memory-mapped dataset of fairseq"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle tokenize``."""
    parser.add_argument("checkpoint", help="checkpoint of the model 'bridle'")
    parser.add_argument("manifest", help="{split}.tsv: root folder, then path<TAB>size")
    parser.add_argument("--out", required=True, metavar="DIR", help="gets {split}.codes.{bin,idx,json}")
    add_batch_arguments(parser)
    add_shard_argument(parser)
    parser.add_argument(
        "--segment-seconds",
        type=float,
        metavar="S",
        help="sound: longer clips are cut into segments of this length (default: as the model was trained)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace codes of another checkpoint or manifest")


def run(args: argparse.Namespace) -> int:
    """Tokenise a shard; the process that finishes the last one writes the codes' files."""
    shard, num_shards, manifest = open_corpus(args)
    from bridle_fairseq.data.artifacts.codes import CodesJob
    from bridle_fairseq.data.modality import modality_of
    from bridle_fairseq.models.checkpoints import load_model
    from bridle_fairseq.utils.device import choose_device

    device = choose_device(args.device)
    model, task = load_model(args.checkpoint, device)
    split = Path(args.manifest).name.removesuffix(".tsv")
    prefix = os.path.join(args.out, f"{split}.codes")
    job = CodesJob(prefix, _describe(args, model, task, manifest), manifest, args.overwrite)
    if job.finished():
        print(f"{prefix}.bin is complete already: codes of this checkpoint and manifest")
        return 0
    reader = modality_of(task.cfg).reader(task.cfg)
    clips, seconds = _make_missing(args, model, reader, job, job.missing(shard, num_shards), split)
    print(f"{split}: {clips} clips in {seconds:.1f} s, {clips / max(seconds, 1e-9):.1f} clips/s on {device}")
    summary = job.join()
    if summary is not None:
        _report(summary, prefix)
    elif not job.finished():
        left = len(job.missing())
        print(f"{split}: shard {shard} of {num_shards} is done; {left} of {len(job.blocks)} chunks are left to others")
    return 0


def _make_missing(
    args: argparse.Namespace, model: Any, reader: Any, job: Any, todo: list[int], name: str
) -> tuple[int, float]:
    """Make and store these blocks; the number of their clips, and the seconds it took."""
    from bridle_fairseq.inference.pipeline import BatchLimits, CodeMaker, SegmentReader, segments_of_codes

    info = job.info
    with SegmentReader(job.manifest, reader, segments_of_codes(info), args.workers) as segments:
        maker = CodeMaker(model, segments, BatchLimits(args.batch_size, args.max_tokens))
        return make_missing(job, todo, maker.make, args.max_skipped, name)


def _describe(args: argparse.Namespace, model: Any, task: Any, manifest: Any) -> Any:
    """The :class:`CodesInfo` of what this model makes of this manifest."""
    from bridle_fairseq.data.artifacts.codes import CodesInfo
    from bridle_fairseq.data.modality import modality_of
    from bridle_fairseq.utils.files import file_sha256

    settings, modality = model.settings, modality_of(task.cfg)
    segment = modality.segment(task.cfg, args.segment_seconds)
    if segment < 1:
        raise InputError(f"--segment-seconds is {args.segment_seconds}; expected more than 0")
    return CodesInfo(
        num_codebooks=settings.num_codebooks,
        codebook_size=settings.codebook_size,
        grid=modality.layout_of_codes(task.cfg, model.front_end, segment),
        checkpoint_sha256=file_sha256(args.checkpoint),
        manifest_sha256=manifest.fingerprint(),
    )


def _report(summary: Any, prefix: str) -> None:
    """What the finished codes hold."""
    import torch

    from bridle_fairseq.quantization.statistics import level_statistics

    print(f"{summary.rows} clips, {summary.patches} patches, {len(summary.skipped)} clips skipped")
    print("level  codes used  perplexity   bits  residual energy")
    for use, energy in zip(level_statistics(torch.from_numpy(summary.counts)), summary.residual_energy, strict=True):
        used = f"{use.used_codes}/{use.codebook_size}"
        print(f"{use.level:5}  {used:>10}  {use.perplexity:10.1f}  {use.entropy_bits:5.2f}  {energy:15.3f}")
    if summary.skipped:
        print(f"skipped: {prefix}.skipped.tsv; their items are empty")
    print(f"codes: {prefix}.bin, .idx, .json")
