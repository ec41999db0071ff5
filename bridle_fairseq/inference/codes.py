"""The codes of a corpus, computed by the tokenizer of a pretrained model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.artifacts.codes import CodesInfo, CodesJob, CodesSummary, segment_count
from bridle_fairseq.data.artifacts.shard_run import WHOLE_JOB, Shard, ShardOutcome, compute_blocks, run_shard
from bridle_fairseq.data.artifacts.sharding import BlockResult
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.exported.source import model_sha256
from bridle_fairseq.inference.pipeline import BatchLimits, BatchOptions, Segment, SegmentReader, process
from bridle_fairseq.nn.code_tokenizer import CodeTokenizer
from bridle_fairseq.quantization.statistics import level_statistics
from bridle_fairseq.utils.errors import InputError


def tokenize_corpus(
    model: CodeTokenizer,
    task_cfg: Any,
    manifest: Manifest,
    prefix: str,
    info: CodesInfo,
    options: BatchOptions,
    shard: Shard = WHOLE_JOB,
    overwrite: bool = False,
) -> ShardOutcome:
    """Write ``{prefix}.{bin,idx,json}``, or a shard of it.

    Args:
        model: in eval mode, on its device.
        task_cfg: configuration of the task it was trained with.
        manifest: the clips.
        prefix: path up to and including ``{split}.codes``.
        info: see :func:`describe_codes`.
        options: how clips are read and batched.
        shard: the share of this process.
        overwrite: allow replacing codes of another checkpoint, manifest or segment length.

    Returns:
        What this process did; the summary is a :class:`CodesSummary`.

    Raises:
        InputError: other codes are there, or too many clips are unusable.
    """
    job = CodesJob(prefix, info, manifest, overwrite)

    def compute(numbers: list[int]) -> None:
        reader = modality_of(task_cfg).reader(task_cfg)
        with SegmentReader(manifest, reader, segments_of_codes(info), options.workers) as segments:
            maker = CodeMaker(model, segments, options.limits)
            name = os.path.basename(prefix).removesuffix(".codes")
            compute_blocks(job, numbers, maker.make, options.max_skipped, name)

    return run_shard(job, shard, compute)


def describe_codes(
    model: CodeTokenizer, task_cfg: Any, manifest: Manifest, checkpoint: str, segment_seconds: float | None = None
) -> CodesInfo:
    """The description of the codes that a model gives a manifest.

    Args:
        model, task_cfg, manifest: as :func:`tokenize_corpus` takes them.
        checkpoint: the model, as :func:`.source.model_sha256` takes it.
        segment_seconds: sound: longer clips are divided into segments of this length; None: the crop length of
            training.

    Raises:
        InputError: a segment of no length.
    """
    modality = modality_of(task_cfg)
    segment = modality.segment(task_cfg, segment_seconds)
    if segment < 1:
        raise InputError(f"--segment-seconds is {segment_seconds}; expected more than 0")
    return CodesInfo(
        num_codebooks=model.settings.num_codebooks,
        codebook_size=model.settings.codebook_size,
        grid=modality.layout_of_codes(task_cfg, model.front_end, segment),
        checkpoint_sha256=model_sha256(checkpoint),
        manifest_sha256=manifest.fingerprint(),
    )


def summary_text(summary: CodesSummary, prefix: str) -> str:
    """What complete codes hold, with statistics of each level, as ``bridle tokenize`` prints it."""
    lines = [
        f"{summary.rows} clips, {summary.patches} patches, {len(summary.skipped)} clips skipped",
        "level  codes used  perplexity   bits  residual energy",
    ]
    for use, energy in zip(level_statistics(torch.from_numpy(summary.counts)), summary.residual_energy, strict=True):
        used = f"{use.used_codes}/{use.codebook_size}"
        lines.append(f"{use.level:5}  {used:>10}  {use.perplexity:10.1f}  {use.entropy_bits:5.2f}  {energy:15.3f}")
    if summary.skipped:
        lines.append(f"skipped: {prefix}.skipped.tsv; their items are empty")
    return "\n".join([*lines, f"codes: {prefix}.bin, .idx, .json"])


def segments_of_codes(info: CodesInfo) -> Callable[[int, int], list[Segment]]:
    """(row, length of its clip) -> consecutive segments of the training's crop length, of which the codes are made."""

    def cut(row: int, total: int) -> list[Segment]:
        length = info.segment_length
        count = segment_count(total, length, info.min_segment_length)
        return [Segment(row, n * length, min(length, total - n * length)) for n in range(count)]

    return cut


class CodeMaker:
    """Computes the codes of blocks of rows.

    Args:
        model: in eval mode, on its device.
        reader: reads the manifest's rows; its ``cut`` is :func:`segments_of_codes`.
        limits: maximum size of a batch.
    """

    def __init__(self, model: CodeTokenizer, reader: SegmentReader, limits: BatchLimits) -> None:
        self.model, self.reader, self.limits = model, reader, limits
        self.device = next(model.parameters()).device

    def make(self, rows: range, on_done: Callable[[int], object] = lambda clips: None) -> BlockResult:
        """The codes of these rows, in the arrays of :class:`CodesJob`."""
        energy = np.zeros(self.model.settings.num_codebooks)

        def work(_: list[Segment], source: Tensor, mask: Tensor | None) -> list[np.ndarray]:
            nonlocal energy
            codes, batch_energy = self._encode(source, mask)
            energy = energy + batch_energy
            return codes

        by_row, bad = process(self.reader, rows, work, self.limits, on_done)
        flat = [codes.ravel() for row in rows for codes in by_row.get(row, ())]
        sizes = np.array([sum(codes.size for codes in by_row.get(row, ())) for row in rows], dtype=np.int64)
        codes = np.concatenate(flat) if flat else np.zeros(0, np.uint16)
        return BlockResult({"codes": codes, "sizes": sizes, "energy": energy}, sorted(bad.items()))

    @torch.inference_mode()
    def _encode(self, source: Tensor, mask: Tensor | None) -> tuple[list[np.ndarray], np.ndarray]:
        """Codes (n x K uint16) of each clip, and K sums over their patches of the energy left after each level."""
        patches = self.model.patches(source.to(self.device), None if mask is None else mask.to(self.device))
        latents = self.model.latents(patches, self.model.has_tokenizer)
        result = self.model.quantizer(latents, patches.padding_mask)
        codes = result.codes.cpu().numpy().astype(np.uint16)  # B x N x K
        if patches.padding_mask is None:
            kept = list(codes)
        else:
            kept = [rows[keep] for rows, keep in zip(codes, (~patches.padding_mask).cpu().numpy(), strict=True)]
        return kept, result.residual_energy.double().cpu().numpy() * sum(map(len, kept))
