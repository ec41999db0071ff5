"""Mean and standard deviation of a corpus's log-mel frames or pixels, by which a model normalizes its input."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.dataset import MediaDataset
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog, above_limit
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.nn.fbank import LogMel
from bridle_fairseq.nn.frontend import unit_range
from bridle_fairseq.prepare.statistics_cache import (
    MODEL_SETTINGS,
    KeptStatistics,
    cache_path,
    read_statistics,
    write_statistics,
)
from bridle_fairseq.utils.bounds import BINS, GRID, LENGTH, MOST_WORKERS, RATE, RATE_TIMES_BINS
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.progress import with_progress
from bridle_fairseq.utils.schema import Real, Whole, check, check_product, described, kinds_of

SKIPPED_SHOWN = 20
# A batch and its padding -> values (B x channels x sizes), and their padding (B x the first sizes) or None.
Values = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class StatisticsOptions:
    """What is measured.

    Attributes:
        modality: modality of the files.
        max_clips: size of a random sample; None: all clips.
        max_seconds: sound: a random crop of longer clips.
        sample_rate, num_mel_bins: sound: of the model.
        image_size: images and video: the center is resized to this.
        num_frames, frame_stride: video: frames of a clip, and the distance between two of them.
        batch_size: clips at a time.
        workers: processes that decode.
        seed: seed of the sample and of the crops.

    Raises:
        InputError: a number out of its bounds.
    """

    modality: str = "audio"
    max_clips: int | None = described(LENGTH, default=None)
    max_seconds: float = described(Real(0, 1e9, above=True), default=10.24)
    sample_rate: int = described(RATE, default=16000)
    num_mel_bins: int = described(BINS, default=128)
    image_size: int = described(GRID["image_size"], default=224)
    num_frames: int = described(GRID["num_frames"], default=16)
    frame_stride: int = described(GRID["frame_stride"], default=4)
    batch_size: int = described(LENGTH, default=32)
    workers: int = described(Whole(0, MOST_WORKERS), default=2)
    seed: int = described(Whole(0, (1 << 63) - 1), default=1)

    def __post_init__(self) -> None:
        for name, kind in kinds_of(StatisticsOptions).items():
            value = getattr(self, name)
            if value is not None:
                check(kind, f"--{name.replace('_', '-')}", value)
        check_product(RATE_TIMES_BINS, {"--sample-rate": self.sample_rate, "--num-mel-bins": self.num_mel_bins})

    def model_input(self) -> dict[str, Any]:
        """The modality, and the settings of a model on which the statistics depend."""
        return {name: getattr(self, name) for name in ("modality", *MODEL_SETTINGS[self.modality])}


class InputStatistics(NamedTuple):
    """Statistics of each channel: one of sound, three of images and video."""

    mean: list[float]
    deviation: list[float]
    num_values: int  # of each channel
    clips: int
    skipped: list[tuple[str, str]]  # (path, reason) of the clips that cannot be read


def measure_overrides(
    path: str, options: StatisticsOptions, max_skipped: float = 0.01, say: Callable[[str], object] = lambda line: None
) -> list[str]:
    """Measure the manifest at a path and keep the statistics beside it; as overrides of a training run.

    Args:
        path: path of the manifest.
        options: what is measured.
        max_skipped: abort if more than this fraction of the clips, and more than a few, cannot be read.
        say: called with lines about the clips that were read and skipped.

    Raises:
        InputError: too many clips, or all of them, cannot be read.
    """
    manifest = Manifest.read(path)
    statistics = input_statistics(manifest, options)
    skipped, clips = len(statistics.skipped), statistics.clips
    for skipped_path, reason in statistics.skipped[:SKIPPED_SHOWN]:
        say(f"left out: {skipped_path}: {reason}")
    if skipped > SKIPPED_SHOWN:
        say(f"left out: {skipped - SKIPPED_SHOWN} more")
    above = above_limit(skipped, clips + skipped, max_skipped)
    if above:
        raise InputError(f"{path}: {skipped} of {clips + skipped} clips cannot be read, {above}; see above")
    many = "images" if options.modality == "image" else "clips"
    values = f"{statistics.num_values} pixels"
    if options.modality == "audio":
        values = f"{statistics.num_values // options.num_mel_bins} frames"
    say(f"{clips} {many}, {values}; {skipped} skipped")
    kept = KeptStatistics(
        input=options.model_input(),
        manifest_sha256=manifest.fingerprint(),
        mean=statistics.mean,
        deviation=statistics.deviation,
        clips=clips,
        skipped=skipped,
        sample={"max_clips": options.max_clips, "max_seconds": options.max_seconds, "seed": options.seed},
    )
    try:
        write_statistics(path, kept)
    except OSError as error:  # such as a folder that others own: the statistics are worth printing
        say(f"{cache_path(path)}: not written ({error.strerror}); a training run will measure again")
    return kept.overrides()


def kept_or_measured(
    path: str, options: StatisticsOptions, max_skipped: float, say: Callable[[str], object]
) -> list[str]:
    """The statistics that are kept beside the manifest at a path, else those that :func:`measure_overrides` measures.

    Raises:
        InputError: as :func:`measure_overrides`.
    """
    try:
        kept = read_statistics(path, Manifest.read(path), options.model_input())
    except InputError as error:
        say(f"{error}; measuring again")
        kept = None
    if kept is None:
        return measure_overrides(path, options, max_skipped, say)
    say(f"statistics of {kept.clips} clips, {kept.skipped} skipped: {cache_path(path)}")
    return kept.overrides()


def input_statistics(manifest: Manifest, options: StatisticsOptions) -> InputStatistics:
    """Measure the clips of a manifest as training reads them, without augmentation; long ones are cropped at random.

    Raises:
        InputError: not a single clip can be read.
    """
    if options.max_clips is not None and options.max_clips < len(manifest):
        sample = np.random.default_rng(options.seed).choice(len(manifest), options.max_clips, replace=False)
        manifest = manifest.select(np.sort(sample))
    cfg = _task_configuration(options)
    with tempfile.TemporaryDirectory() as folder:
        skips = SkipLog(manifest, Path(folder, "skipped.tsv"))
        dataset = modality_of(cfg).dataset(manifest, cfg, training=True, skips=skips)
        mean, deviation, count = value_statistics(dataset, _values(options), options.batch_size, options.workers)
        skipped = [(path, reason) for _, path, reason in skips.entries()]
    return InputStatistics(mean, deviation, count, len(manifest) - skips.count, skipped)


def _task_configuration(options: StatisticsOptions) -> SimpleNamespace:
    """The configuration of a task that reads clips in this way."""
    return SimpleNamespace(
        modality=options.modality,
        seed=options.seed,
        num_buckets=16,
        sample_rate=options.sample_rate,
        max_sample_size=round(options.max_seconds * options.sample_rate),
        roll=False,
        gain=False,
        image_size=options.image_size,
        num_frames=options.num_frames,
        frame_stride=options.frame_stride,
        random_start=True,
        valid_crop=1.0,
        crop=False,
        flip=False,
        rand_augment=0,
        rand_magnitude=0,
        erase=0.0,
    )


def _values(options: StatisticsOptions) -> Values:
    if options.modality != "audio":
        return lambda source, padding_mask: (unit_range(source), padding_mask)
    log_mel = LogMel(options.sample_rate, options.num_mel_bins)

    def fbank_values(source: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        fbank, padding = log_mel(source, padding_mask)
        return fbank.unsqueeze(1), padding  # B x 1 x M x bins

    return fbank_values


def value_statistics(
    dataset: MediaDataset, values: Values, batch_size: int, workers: int
) -> tuple[list[float], list[float], int]:
    """Mean and standard deviation of each channel over all valid values, summed in float64, and their number.

    Raises:
        InputError: not a single clip can be read.
    """
    order = dataset.ordered_indices()
    batches = [rows.tolist() for rows in np.split(order, range(batch_size, len(order), batch_size))]
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=batches, collate_fn=dataset.collater, num_workers=workers
    )
    total, squares, count = torch.zeros(1), torch.zeros(1), 0
    for batch in with_progress(loader, "stats", "batches"):
        if not batch:
            continue
        x, padding = values(batch["net_input"]["source"], batch["net_input"]["padding_mask"])
        channels = x.transpose(0, 1)  # channels x B x sizes
        channels = (channels if padding is None else channels[:, ~padding]).flatten(1).double()  # channels x n
        total = total + channels.sum(1)
        squares = squares + channels.square().sum(1)
        count += channels.shape[1]
    if count == 0:
        example = "".join(f", such as {path} ({reason})" for _, path, reason in dataset.skips.entries()[:1])
        raise InputError(f"{dataset.manifest.name}: none of {len(dataset)} clips can be read{example}")
    mean = total / count
    if not (mean.isfinite() & squares.isfinite()).all():
        raise InputError(f"{dataset.manifest.name}: the mean of the values is not finite; expected usable clips only")
    return mean.tolist(), (squares / count - mean.square()).clamp(min=0).sqrt().tolist(), count
