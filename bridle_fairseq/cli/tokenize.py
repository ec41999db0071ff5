"""``bridle tokenize``: the codes of a manifest's clips, by any number of processes, each of which may be killed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from bridle_fairseq.errors import InputError

HELP = "write the codes of a manifest's clips, as a memory-mapped dataset of fairseq"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle tokenize``."""
    parser.add_argument("checkpoint", help="checkpoint of the model 'bridle'")
    parser.add_argument("manifest", help="{split}.tsv: root folder, then path<TAB>size")
    parser.add_argument("--out", required=True, metavar="DIR", help="gets {split}.codes.{bin,idx,json}")
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="clips of a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=3_200_000,
        metavar="N",
        help="samples of a padded batch (default: %(default)s)",
    )
    parser.add_argument(
        "--segment-seconds",
        type=float,
        metavar="S",
        help="longer clips are cut into segments of this length (default: the crop length the model was trained with)",
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="do part I (from 0) of N only; under torchrun each rank does its own"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    parser.add_argument(
        "--max-skipped",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="stop above this share of unusable clips (0.01)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace codes of another checkpoint or manifest")
    parser.add_argument(
        "--workers", type=int, default=min(4, os.cpu_count() or 1), help="threads that read sound files"
    )


def run(args: argparse.Namespace) -> int:
    """Tokenise a shard; the process that finishes the last one writes the codes' files."""
    from bridle_fairseq.data.manifest import Manifest

    shard, num_shards = _shard(args.shard)
    for name in ("batch_size", "max_tokens", "workers"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least 1")
    manifest = Manifest.read(args.manifest)
    manifest.check_files()
    from bridle_fairseq.cli.checkpoint import choose_device, load_model
    from bridle_fairseq.data.parts import Parts

    device = choose_device(args.device)
    model, task = load_model(args.checkpoint, device)
    split = Path(args.manifest).name.removesuffix(".tsv")
    prefix = os.path.join(args.out, f"{split}.codes")
    parts = Parts(prefix, _describe(args, model, task, manifest), manifest, args.overwrite)
    if parts.finished():
        print(f"{prefix}.bin is complete already: codes of this checkpoint and manifest")
        return 0
    clips, seconds = _make_missing(args, model, parts, parts.missing(shard, num_shards), split)
    print(f"{split}: {clips} clips in {seconds:.1f} s, {clips / max(seconds, 1e-9):.1f} clips/s on {device}")
    summary = parts.join()
    if summary is not None:
        _report(summary, prefix)
    elif not parts.finished():
        left = len(parts.missing())
        print(
            f"{split}: shard {shard} of {num_shards} is done; {left} of {len(parts.chunks)} chunks are left to others"
        )
    return 0


def _make_missing(args: argparse.Namespace, model: Any, parts: Any, todo: list[int], name: str) -> tuple[int, float]:
    """Make and store these chunks; the number of their clips, and the seconds it took."""
    from bridle_fairseq.corpus import CodeMaker, SegmentReader
    from bridle_fairseq.data.skips import SkipLog

    skips = SkipLog(parts.manifest, f"{parts.prefix}.skipped.tsv")
    for row, reason in parts.skipped():  # by a run that was killed, or by other shards
        skips.add(row, reason)
    clips, begun = sum(len(parts.chunks[number]) for number in todo), time.monotonic()
    with SegmentReader(parts.manifest, parts.info, args.workers) as reader, _progress(clips, name) as bar:
        maker = CodeMaker(model, reader, args.batch_size, args.max_tokens)
        for number in todo:
            part = maker.make(parts.chunks[number], bar.update)
            for row, reason in part.skipped:
                skips.add(row, reason)
            parts.write(number, part)
            skips.check(args.max_skipped)
    return clips, time.monotonic() - begun


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise InputError(f"--shard is {text!r}; expected I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)


def _describe(args: argparse.Namespace, model: Any, task: Any, manifest: Any) -> Any:
    """The :class:`CodesInfo` of what this model makes of this manifest."""
    from bridle_fairseq.cli.checkpoint import file_sha256
    from bridle_fairseq.data.codes import CodesInfo
    from bridle_fairseq.nn.patch import grid_size

    settings = model.settings
    if args.segment_seconds is None:
        segment = int(getattr(task.cfg, "max_sample_size", None) or 10.24 * settings.sample_rate)
    else:
        segment = round(args.segment_seconds * settings.sample_rate)
    if segment < 1:
        raise InputError(f"--segment-seconds is {args.segment_seconds}; expected more than 0")
    frames = model.front_end.log_mel.frame_count(segment)
    time_patches, frequency_patches = grid_size((frames, settings.num_mel_bins), settings.patch_size)
    return CodesInfo(
        num_codebooks=settings.num_codebooks,
        codebook_size=settings.codebook_size,
        frequency_patches=frequency_patches,
        patch_frames=settings.patch_size[0],
        segment_samples=segment,
        min_segment_samples=int(getattr(task.cfg, "min_sample_size", None) or 1),
        patches_per_segment=time_patches * frequency_patches,
        sample_rate=settings.sample_rate,
        checkpoint_sha256=file_sha256(args.checkpoint),
        manifest_sha256=manifest.fingerprint(),
    )


def _progress(total: int, name: str) -> Any:
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 30.0  # a log file needs no line five times a second
    return tqdm(total=total, desc=name, unit=" clips", mininterval=interval, disable=total == 0)


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
