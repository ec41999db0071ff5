"""The features of a corpus: written to files, shard by shard, or in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.artifacts.features import PATCHES, FeatureArray, FeaturesInfo, FeaturesJob, FeaturesSummary
from bridle_fairseq.data.artifacts.patch_rows import PatchRows
from bridle_fairseq.data.artifacts.shard_run import (
    WHOLE_JOB,
    Shard,
    ShardOutcome,
    compute_blocks,
    run_shard,
)
from bridle_fairseq.data.artifacts.sharding import BlockResult, plan_blocks
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.inference.chunking import Chunking, WholeClip
from bridle_fairseq.inference.extractors import Extractor, SegmentBatch
from bridle_fairseq.inference.pipeline import BatchLimits, BatchOptions, Segment, SegmentReader, process
from bridle_fairseq.nn.frontend import AudioFrontEnd, FrontEnd
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import size_text
from bridle_fairseq.utils.memory import available_memory
from bridle_fairseq.utils.progress import progress_bar


def write_features(
    extractor: Extractor,
    chunking: Chunking | WholeClip,
    manifest: Manifest,
    prefix: str | os.PathLike[str],
    checkpoint_sha256: str,
    options: BatchOptions,
    dtype: str = "float32",
    shard: Shard = WHOLE_JOB,
    overwrite: bool = False,
    name: str = "features",
) -> ShardOutcome:
    """Write ``{prefix}.json`` and a ``.npy`` file for each of the extractor's arrays, or a shard of them.

    Args:
        extractor: computes the features.
        chunking: how clips are divided into segments.
        manifest: the clips.
        prefix: path up to and including ``{split}.features``.
        checkpoint_sha256: SHA-256 of the model's file; empty without a model.
        options: how clips are read and batched.
        dtype: type of the stored values, ``float16`` or ``float32``.
        shard: the share of this process.
        overwrite: allow replacing features of other settings.
        name: label of the progress bar.

    Returns:
        What this process did; the summary is a :class:`.FeaturesSummary`.

    Raises:
        InputError: other features are there, or too many clips are unusable.
    """
    info = FeaturesInfo(extractor.arrays, dtype, chunking.layout, checkpoint_sha256, manifest.fingerprint())
    job = FeaturesJob(prefix, info, manifest, overwrite)

    def compute(numbers: list[int]) -> None:
        with SegmentReader(manifest, chunking.reader, chunking, options.workers) as reader:
            maker = FeatureMaker(chunking.front_end, [extractor], reader, options.limits, dtype, options.device)
            compute_blocks(job, numbers, maker.make, options.max_skipped, name)

    return run_shard(job, shard, compute)


def summary_text(summary: FeaturesSummary, prefix: str, info: FeaturesInfo) -> str:
    """What complete features hold, as ``bridle features`` prints it."""
    lines = [f"{summary.rows} clips, {summary.patches} patches, {len(summary.skipped)} clips skipped"]
    for array in info.arrays:
        rows = summary.patches if array.pooling == PATCHES else summary.rows
        lines.append(f"{prefix}.{array.name}.npy: {rows} x {array.width} {info.dtype}")
    if summary.skipped:
        lines.append(f"skipped: {prefix}.skipped.tsv; their pooled features are NaN, and they have no patches")
    return "\n".join([*lines, f"index: {prefix}.json"])


def extract_corpus(
    extractors: Sequence[Extractor],
    chunking: Chunking | WholeClip,
    manifest: Manifest,
    options: BatchOptions,
    name: str = "features",
    skipped_list: str | os.PathLike[str] | None = None,
    on_skipped: Callable[[int, str], object] = lambda row, reason: None,
) -> dict[FeatureArray, Any]:
    """Features of a manifest's rows in memory.

    Args:
        extractors: compute the features; of one front end.
        chunking, manifest, options, name: as :func:`write_features` takes them.
        skipped_list: file that lists the rows that cannot be read; None: they are only counted.
        on_skipped: called with each of them, and the reason.

    Returns:
        array -> n x d float32, NaN where a row cannot be read; of the pooling ``patches`` a float16
        :class:`.patch_rows.PatchRows`, in which such a row has no patch.

    Raises:
        InputError: too many clips are unusable, or the patches do not fit into memory.
    """
    skips = SkipLog(manifest, skipped_list)
    results = []
    with (
        SegmentReader(manifest, chunking.reader, chunking, options.workers) as reader,
        progress_bar(len(manifest), name) as bar,
    ):
        maker = FeatureMaker(chunking.front_end, extractors, reader, options.limits, device=options.device)
        for rows in plan_blocks(manifest.sizes):
            results.append(maker.make(rows, bar.update))
            _halve_patches(results[-1], maker.arrays)
            _check_patches_fit(results, maker.arrays, rows.stop, len(manifest), name)
            for row, reason in results[-1].skipped:
                skips.add(row, reason)
                on_skipped(row, reason)
            skips.check(options.max_skipped)
    counts = np.concatenate([result.arrays["sizes"] for result in results])
    features: dict[FeatureArray, Any] = {}
    for array in maker.arrays:
        values = np.concatenate([result.arrays.pop(array.name) for result in results])
        features[array] = PatchRows.of_counts(values, counts) if array.pooling == PATCHES else values
    return features


def _halve_patches(result: BlockResult, arrays: Sequence[FeatureArray]) -> None:
    """Patches as float16, which the attentive probe takes; what exceeds its range becomes its limit."""
    limit = np.finfo(np.float16).max
    for array in arrays:
        if array.pooling == PATCHES:
            result.arrays[array.name] = result.arrays[array.name].clip(-limit, limit).astype(np.float16)


def _check_patches_fit(
    results: Sequence[BlockResult], arrays: Sequence[FeatureArray], done: int, clips: int, name: str
) -> None:
    """Check that the patches of all clips will fit into memory, judged by those of the first clips.

    Raises:
        InputError: they will not.
    """
    patches = [array.name for array in arrays if array.pooling == PATCHES]
    if not patches:
        return
    so_far = sum(result.arrays[name].nbytes for result in results for name in patches)
    # joining the blocks needs one of the arrays twice
    missing = so_far * clips / done * (1 + 1 / len(patches)) - so_far
    available = available_memory()
    if missing > available:
        raise InputError(
            f"{name}: the patches of {clips} clips take {size_text(int(so_far * clips / done))} in memory and "
            f"{size_text(available)} is free; expected fewer layers (--layers last), or stored features (bridle "
            "features --pooling patches), which are read from disk"
        )


class FeatureMaker:
    """Computes the features of blocks of rows.

    Args:
        front_end: front end of all extractors.
        extractors: compute the features.
        reader: reads the manifest's rows; its ``cut`` is the chunking.
        limits: maximum size of a batch.
        dtype: type of the arrays, ``float16`` or ``float32``.
        device: device of the extractors' models.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        extractors: Sequence[Extractor],
        reader: SegmentReader,
        limits: BatchLimits,
        dtype: str = "float32",
        device: str | torch.device = "cpu",
    ) -> None:
        self.front_end, self.extractors, self.reader, self.limits = front_end, extractors, reader, limits
        self.dtype, self.device = np.dtype(dtype), device
        self.arrays = tuple(array for extractor in extractors for array in extractor.arrays)

    def make(self, rows: range, on_done: Callable[[int], object] = lambda clips: None) -> BlockResult:
        """Features of these rows, in the arrays of :class:`FeaturesJob`."""
        by_row, bad = process(self.reader, rows, self._extract_batch, self.limits, on_done)
        values: dict[str, list[np.ndarray]] = {array.name: [] for array in self.arrays}
        sizes = np.zeros(len(rows), dtype=np.int64)
        for index, row in enumerate(rows):
            features: dict[str, np.ndarray] = {}
            if row in by_row:
                features, sizes[index] = self._merge_segments(by_row.pop(row))
                overflown = [name for name, value in features.items() if not np.isfinite(value).all()]
                if overflown:
                    bad[row] = f"features {overflown[0]} are not finite in {self.dtype}"
                    features, sizes[index] = {}, 0
            for array in self.arrays:
                values[array.name].append(self._as_rows(array, features.get(array.name)))
        arrays = {name: np.concatenate(of_rows) for name, of_rows in values.items()}
        return BlockResult({**arrays, "sizes": sizes}, sorted(bad.items()))

    def _as_rows(self, array: FeatureArray, value: np.ndarray | None) -> np.ndarray:
        """n x width of a clip's n patches, or 1 x width if pooled; no row, or NaN, for a clip that cannot be read."""
        if array.pooling == PATCHES:
            return np.zeros((0, array.width), self.dtype) if value is None else value
        return np.full((1, array.width), np.nan, self.dtype) if value is None else value[None]

    def _merge_segments(self, segments: list[list[Any]]) -> tuple[dict[str, np.ndarray], int]:
        """A row's features by array name, in the stored type, and the number of its patches."""
        *by_extractor, sizes = zip(*segments, strict=True)
        features: dict[str, np.ndarray] = {}
        for extractor, results in zip(self.extractors, by_extractor, strict=True):
            features |= extractor.merge_segments(list(results))
        with np.errstate(over="ignore"):  # the caller looks for it
            return {name: value.astype(self.dtype, copy=False) for name, value in features.items()}, sum(sizes)

    @torch.inference_mode()
    def _extract_batch(self, segments: list[Segment], source: Tensor, mask: Tensor | None) -> list[list[Any]]:
        """For each segment the results of all extractors, and the number of its patches that count."""
        source, mask = source.to(self.device), None if mask is None else mask.to(self.device)
        batch = self._batch(segments, source, mask)
        results = [extractor.extract_batch(batch) for extractor in self.extractors]
        return [list(of_segment) for of_segment in zip(*results, batch.sizes(), strict=True)]

    def _batch(self, segments: list[Segment], source: Tensor, mask: Tensor | None) -> SegmentBatch:
        patches = self.front_end(source, mask)
        steps, rows = patches.grid[0], math.prod(patches.grid[1:])
        if patches.padding_mask is None:
            valid = [steps] * len(segments)
        else:
            valid = ((~patches.padding_mask).sum(1) // rows).tolist()
        kept = [segment.kept or (0, count) for segment, count in zip(segments, valid, strict=True)]
        left_out, offset, clip_steps = patches.padding_mask, None, None
        if any(segment.start for segment in segments):
            assert isinstance(self.front_end, AudioFrontEnd)
            samples = self.front_end.patch_size[0] * self.front_end.log_mel.frame_shift
            offset = torch.tensor([segment.start // samples for segment in segments], device=source.device)
        if any(segment.kept for segment in segments):
            time = torch.arange(steps, device=source.device)
            begin, end = torch.tensor(kept, device=source.device).T[:, :, None]  # B x 1 each
            left_out = ((time < begin) | (time >= end)).repeat_interleave(rows, dim=1)  # B x steps -> B x N
            lengths = [segment.clip_steps or count for segment, count in zip(segments, valid, strict=True)]
            clip_steps = torch.tensor(lengths, device=source.device)
        return SegmentBatch(source, mask, patches, left_out, kept, offset, clip_steps)
