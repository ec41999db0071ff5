"""Sound: manifests of sound files as data sets, and reading them clip by clip. Nothing here imports fairseq."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from bridle_fairseq.data.artifacts.codes import CachedCodes, segment_count
from bridle_fairseq.data.audio.augment import AudioAugment
from bridle_fairseq.data.audio.decode import crop_of, open_sound, read_crop, read_info, resampled_length
from bridle_fairseq.data.dataset import MediaDataset
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.data.modality import Modality
from bridle_fairseq.nn.fbank import FRAME_SHIFT_MS
from bridle_fairseq.utils.errors import DecodeError, InputError

PROBED_FILES = 32


class AudioDataset(MediaDataset):
    """Waveforms of a manifest, cropped, resampled, mono, augmented.

    While training, a clip longer than ``max_sample_size`` gives a random crop; otherwise its beginning, always the
    same. One shorter than ``min_sample_size`` leaves its batch without being counted as skipped.

    Lengths for batching (``sizes``) come from the manifest's sizes, which count samples at each file's own rate. They
    are scaled by the lowest rate among 32 probed files: exact when all files have one rate, else an upper bound, save
    for a file of a lower rate still that was not probed: its item is longer than its size, and it may be taken for
    shorter than ``min_sample_size``.

    Args:
        manifest, training, seed, skips, num_buckets, codes: see :class:`MediaDataset`.
        sample_rate: of the items, in Hz.
        max_sample_size: samples of the longest item; None for no limit.
        min_sample_size: samples of the shortest item; cached codes may be of shorter last segments, too, which are not
            shown then.
        augment: what happens to a training item after cropping; with cached codes it is rolled by whole patches.
        segment_crops: crop only at multiples of ``max_sample_size``, as with cached codes. A segment is drawn as often
            as its share of the clip, so that a short last one is seldom an item.
        whole: nothing is cropped; a clip longer than ``max_sample_size`` cannot be used.

    Raises:
        InputError: a missing file, no readable file among those probed, or codes that do not fit the other settings.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        sample_rate: int = 16000,
        max_sample_size: int | None = None,
        min_sample_size: int | None = None,
        training: bool = False,
        seed: int = 0,
        augment: AudioAugment | None = None,
        skips: SkipLog | None = None,
        num_buckets: int = 16,
        segment_crops: bool = False,
        whole: bool = False,
        codes: CachedCodes | None = None,
    ) -> None:
        self.sample_rate = sample_rate
        self.max_sample_size = max_sample_size
        self.min_sample_size = max(1, min_sample_size or 1)
        self.augment = augment if training else None
        self.segment_crops, self.whole = segment_crops or codes is not None, whole
        self.codes, self.manifest = codes, manifest
        self._check_settings()
        super().__init__(manifest, training=training, seed=seed, skips=skips, num_buckets=num_buckets, codes=codes)
        lengths = np.ceil(manifest.sizes * (sample_rate / self._lowest_rate())).astype(np.int64)
        self.usable = lengths >= self.min_sample_size
        if not self.usable.any():
            raise InputError(
                f"{manifest.name}: the longest of {len(manifest)} clips has {lengths.max()} samples; expected "
                f"min_sample_size {self.min_sample_size} at least"
            )
        self.sizes = lengths if max_sample_size is None else np.minimum(lengths, max_sample_size)

    def _check_settings(self) -> None:
        if self.max_sample_size is not None and self.max_sample_size < self.min_sample_size:
            raise InputError(
                f"max_sample_size {self.max_sample_size} is under min_sample_size {self.min_sample_size}; "
                "expected at least as much"
            )
        if self.segment_crops and self.max_sample_size is None:
            raise InputError("crops at segment boundaries need max_sample_size, the length of a segment; it is not set")
        if self.codes is None:
            return
        self.codes.check(
            manifest_sha256=self.manifest.fingerprint(),
            sample_rate=self.sample_rate,
            segment_samples=self.max_sample_size,
        )
        shortest = self.codes.info.min_segment
        if shortest > self.min_sample_size:
            raise InputError(
                f"{self.codes.prefix}.json: codes with min_segment_samples {shortest}; expected at most "
                f"min_sample_size {self.min_sample_size}"
            )

    def _lowest_rate(self) -> int:
        rows = np.unique(np.linspace(0, len(self.manifest) - 1, PROBED_FILES).astype(np.int64))
        rates, failure = [], ""
        for row in rows:
            try:
                rates.append(read_info(self.manifest.path(int(row))).sample_rate)
            except DecodeError as error:
                failure = failure or f"{self.manifest.path(int(row))} ({error})"
        if not rates:
            raise InputError(f"{self.manifest.name}: none of {len(rows)} files tried can be read, such as {failure}")
        return min(rates)

    def _load(self, row: int, random: np.random.Generator) -> tuple[list[torch.Tensor], np.ndarray | None] | None:
        with open_sound(self.manifest.path(row)) as sound:
            _check_frames(sound.frames, int(self.manifest.sizes[row]))
            num_samples = resampled_length(sound.frames, sound.samplerate, self.sample_rate)
            if num_samples < self.min_sample_size:
                return None
            if self.whole and self.max_sample_size is not None and num_samples > self.max_sample_size:
                raise DecodeError(f"{num_samples} samples, more than max_sample_size {self.max_sample_size}")
            start, segment = self._crop(num_samples, random)
            samples = crop_of(sound, self.sample_rate, start, self.max_sample_size)
        codes = self._cached(row, segment)
        if self.augment is not None:
            samples, codes = self._augmented(self.augment, samples, codes, random)
        return [torch.from_numpy(np.ascontiguousarray(samples))], codes

    def _augmented(
        self, augment: AudioAugment, samples: np.ndarray, codes: np.ndarray | None, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if self.codes is None or codes is None:
            return augment(samples, random), None
        grid = self.codes.info.grid
        patch_samples = grid["patch_frames"] * int(self.sample_rate * FRAME_SHIFT_MS / 1000)
        return augment.with_codes(samples, codes, grid["frequency_patches"], patch_samples, random)

    def _crop(self, num_samples: int, random: np.random.Generator) -> tuple[int, int]:
        """Where the item begins, in samples and as the number of its segment (0 when crops are free)."""
        longest = self.max_sample_size
        if longest is None or not self.training:
            return 0, 0
        if self.segment_crops:
            count = segment_count(num_samples, longest, self.min_sample_size)
            segment = int(random.integers(min(num_samples, count * longest))) // longest
            return segment * longest, segment
        return int(random.integers(max(0, num_samples - longest) + 1)), 0

    def approximate_patches(self, settings: Any) -> float:
        """From the manifest's sizes: of whole clips, at the files' own rates."""
        frames = float(self.manifest.sizes.sum()) / (0.01 * self.sample_rate)
        return frames / settings.patch_size[0] * settings.num_mel_bins / settings.patch_size[1]


class AudioReader:
    """Stretches of sound files at a model's rate.

    Args:
        sample_rate: of the model, in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def length(self, path: str, size: int | None = None) -> int:
        """Samples of a clip, from its header; ``size``: what the manifest says of it.

        Raises:
            DecodeError: the file cannot be used, or has another size.
        """
        header = read_info(path)
        if size is not None:
            _check_frames(header.num_frames, size)
        return resampled_length(header.num_frames, header.sample_rate, self.sample_rate)

    def read(self, path: str, start: int, length: int) -> torch.Tensor:
        """S float32 samples: see :func:`bridle_fairseq.data.audio.decode.read_crop`."""
        return torch.from_numpy(read_crop(path, self.sample_rate, start, length))


def total_seconds(manifest: Manifest, rows: Iterable[int] | None = None) -> float:
    """Seconds of sound in a manifest's files, or in those of some rows, by their headers.

    Raises:
        InputError: a file that cannot be read, or is of another length than the manifest says.
    """
    seconds = 0.0
    for row in range(len(manifest)) if rows is None else rows:
        try:
            header = read_info(manifest.path(row))
            _check_frames(header.num_frames, int(manifest.sizes[row]))
        except DecodeError as error:
            raise InputError(f"{manifest.name}, line {manifest.line(row)}: {manifest.path(row)}: {error}") from None
        seconds += header.num_frames / header.sample_rate
    return seconds


def _check_frames(found: int, expected: int) -> None:
    if found != expected:
        raise DecodeError(f"{found} samples, the manifest says {expected}")


def _segment_samples(cfg: Any, seconds: float | None = None) -> int:
    if seconds is None:
        return int(getattr(cfg, "max_sample_size", None) or 10.24 * cfg.sample_rate)
    return round(seconds * cfg.sample_rate)


def _dataset(manifest: Manifest, cfg: Any, training: bool = False, **options: Any) -> AudioDataset:
    roll = getattr(cfg, "roll", False)
    augment = AudioAugment(roll=roll, gain=cfg.gain) if training and (roll or cfg.gain) else None
    if training:
        options |= {
            "seed": cfg.seed,
            "num_buckets": cfg.num_buckets,
            "segment_crops": getattr(cfg, "segment_crops", False),
        }
    return AudioDataset(
        manifest,
        sample_rate=cfg.sample_rate,
        max_sample_size=getattr(cfg, "max_sample_size", None),
        min_sample_size=getattr(cfg, "min_sample_size", None),
        training=training,
        augment=augment,
        **options,
    )


def _layout_of_codes(cfg: Any, front_end: Any, segment: int) -> dict[str, int]:
    steps, rows = front_end.grid((segment,))
    return {
        **front_end.layout,
        "segment_samples": segment,
        "min_segment_samples": int(getattr(cfg, "min_sample_size", None) or 1),
        "patches_per_segment": steps * rows,
        "sample_rate": cfg.sample_rate,
    }


MODALITY = Modality(
    name="audio",
    files="sound files",
    extensions=("wav", "flac", "ogg", "opus", "mp3"),
    measure=lambda path: read_info(path).num_frames,
    dataset=_dataset,
    reader=lambda cfg: AudioReader(cfg.sample_rate),
    segment=_segment_samples,
    layout_of_codes=_layout_of_codes,
)
