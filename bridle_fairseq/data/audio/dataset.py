"""Audio: a manifest of audio files as a data set, and a reader of single files. Nothing here imports fairseq."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from bridle_fairseq.data.artifacts.codes import CachedCodes, segment_count
from bridle_fairseq.data.audio.augment import AudioAugment
from bridle_fairseq.data.audio.decode import (
    open_audio,
    read_crop,
    read_info,
    read_open_crop,
    read_rate,
    resampled_length,
)
from bridle_fairseq.data.dataset import LoadedRow, MediaDataset
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.nn.fbank import FRAME_SHIFT_MS
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import DecodeError, InputError

PROBED_FILES = 32


class AudioDataset(MediaDataset):
    """Waveforms of a manifest: cropped, resampled, mono, augmented.

    A clip longer than ``max_sample_size`` gives a random crop while training, else its beginning. A clip shorter than
    ``min_sample_size`` is left out of its batch and not counted as skipped.

    Lengths for batching (``sizes``) are computed from the manifest's sizes, which count samples at each file's own
    rate, and the lowest rate among 32 probed files. They are exact if all files have one rate, else upper bounds. An
    item of a file with a still lower rate can exceed its size, or be wrongly left out as too short.

    Args:
        manifest, training, seed, skips, num_buckets, codes: see :class:`MediaDataset`.
        sample_rate: rate of the items in Hz.
        max_sample_size: maximum length of an item in samples; None: no limit.
        min_sample_size: minimum length of an item in samples. Cached codes may include shorter last segments; they are
            ignored.
        augment: augmentation of training items after cropping; with cached codes the roll is by whole patches.
        segment_crops: crop at multiples of ``max_sample_size`` only, as with cached codes. The probability of a
            segment is its share of the clip, so a short last segment is rare.
        whole: do not crop; a clip longer than ``max_sample_size`` is unusable.

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
        self.codes, self.manifest = codes, manifest  # needed by _check_settings
        self._check_settings()
        super().__init__(manifest, training=training, seed=seed, skips=skips, num_buckets=num_buckets, codes=codes)
        lengths = np.ceil(manifest.sizes * (sample_rate / self._lowest_rate())).astype(np.int64)
        self.long_enough = lengths >= self.min_sample_size
        if not self.long_enough.any():
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
        shortest = self.codes.info.min_segment_length
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
                rates.append(read_rate(self.manifest.path(int(row))))
            except DecodeError as error:
                failure = failure or f"{self.manifest.path(int(row))} ({error})"
        if not rates:
            raise InputError(f"{self.manifest.name}: none of {len(rows)} files tried can be read, such as {failure}")
        return min(rates)

    def _load(self, row: int, random: np.random.Generator) -> LoadedRow | None:
        size = int(self.manifest.sizes[row])
        with open_audio(self.manifest.path(row), size) as file:
            num_samples = resampled_length(file.num_frames or size, file.samplerate, self.sample_rate)
            if num_samples < self.min_sample_size:
                return None
            if self.whole and self.max_sample_size is not None and num_samples > self.max_sample_size:
                raise DecodeError(f"{num_samples} samples, more than max_sample_size {self.max_sample_size}")
            start, segment = self._crop(num_samples, random)
            samples = read_open_crop(file, self.sample_rate, start, self.max_sample_size)
            found = resampled_length(file.num_frames or size, file.samplerate, self.sample_rate)
            if found < num_samples:  # an estimate: the crop is partly or all behind the end
                if found < self.min_sample_size:
                    return None
                start, segment = self._moved(start, segment, found)
                samples = read_open_crop(file, self.sample_rate, start, self.max_sample_size)
        codes = self._cached(row, segment)
        if self.augment is not None:
            samples, codes = self._augmented(self.augment, samples, codes, random)
        return LoadedRow([torch.from_numpy(np.ascontiguousarray(samples))], codes)

    def _augmented(
        self, augment: AudioAugment, samples: np.ndarray, codes: np.ndarray | None, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if self.codes is None or codes is None:
            return augment(samples, random), None
        layout = self.codes.info.grid
        patch_samples = layout["patch_frames"] * int(self.sample_rate * FRAME_SHIFT_MS / 1000)
        return augment.with_codes(samples, codes, layout["frequency_patches"], patch_samples, random)

    def _moved(self, start: int, segment: int, num_samples: int) -> tuple[int, int]:
        """A crop of :meth:`_crop` in a clip that turned out to be shorter."""
        size = self.max_sample_size
        if size is None or not self.training:
            return start, segment
        if self.segment_crops:
            segment = min(segment, segment_count(num_samples, size, self.min_sample_size) - 1)
            return segment * size, segment
        return min(start, max(0, num_samples - size)), segment

    def _crop(self, num_samples: int, random: np.random.Generator) -> tuple[int, int]:
        """First sample of the crop, and the number of its segment (0 if crops are not bound to segments)."""
        size = self.max_sample_size
        if size is None or not self.training:
            return 0, 0
        if self.segment_crops:
            count = segment_count(num_samples, size, self.min_sample_size)
            segment = int(random.integers(min(num_samples, count * size))) // size  # in proportion to its length
            return segment * size, segment
        return int(random.integers(max(0, num_samples - size) + 1)), 0

    def approximate_patches(self, settings: BridleSettings) -> float:
        """Estimated from the manifest's sizes, for whole clips, as if all files had the model's rate."""
        frames = float(self.manifest.sizes.sum()) / (FRAME_SHIFT_MS / 1000 * self.sample_rate)
        return frames / settings.patch_size[0] * settings.num_mel_bins / settings.patch_size[1]


class AudioReader:
    """Segments of audio files at a model's rate.

    Args:
        sample_rate: rate of the model in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def length(self, path: str, size: int | None = None) -> int:
        """Length of a clip in samples, from its header; of an MP3 whose header is wrong, by decoding.

        Args:
            path: path of the file.
            size: the manifest's size, checked unless None.

        Raises:
            DecodeError: the file is unusable, or of another size.
        """
        header = read_info(path, size, decoded=True)
        return resampled_length(header.num_frames, header.sample_rate, self.sample_rate)

    def read(self, path: str, start: int, length: int) -> torch.Tensor:
        """S float32 samples: see :func:`bridle_fairseq.data.audio.decode.read_crop`; all of ``length``."""
        samples = read_crop(path, self.sample_rate, start, length)
        if len(samples) < length:  # the header states no length, and the manifest too much
            raise DecodeError(f"ends after {start + len(samples)} samples at {self.sample_rate} Hz; expected more")
        return torch.from_numpy(samples)


def total_seconds(manifest: Manifest, rows: Iterable[int] | None = None) -> float:
    """Total duration of a manifest's files, or of some rows, from the headers.

    Raises:
        InputError: a file is unreadable, or of another length than the manifest says.
    """
    seconds = 0.0
    for row in range(len(manifest)) if rows is None else rows:
        try:
            header = read_info(manifest.path(row), int(manifest.sizes[row]))
        except DecodeError as error:
            raise InputError(f"{manifest.name}, line {manifest.line(row)}: {manifest.path(row)}: {error}") from None
        seconds += header.num_frames / header.sample_rate
    return seconds
