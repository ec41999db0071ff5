"""From an audio file to mono float32 samples at the model's rate; only the requested crop is read.

Reads whatever soundfile reads: wav, flac, ogg (Vorbis, Opus), mp3 and more, 8 to 32 bit, any rate, any number of
channels (mixed down by their mean). Opus files report, and decode at, the rate they were recorded with.
"""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np
import soundfile

from bridle_fairseq.data.audio.resample import resample, resampled_length
from bridle_fairseq.data.manifests.archive import Slice, split_slice
from bridle_fairseq.utils.errors import DecodeError

RESAMPLER_MARGIN_SECONDS = 0.1  # several times the one-sided support of soxr's HQ filter


class AudioInfo(NamedTuple):
    """What a file's header says: frames (samples per channel) at ``sample_rate``."""

    num_frames: int
    sample_rate: int


class AudioFile(soundfile.SoundFile):
    """An audio file for sequential reading.

    After every read, soundfile seeks to the position where the file already is. Opus decodes again for that, which
    costs up to 40 % of the time of a short clip. soundfile skips the seek for files that claim not to be seekable;
    seeking them still works.
    """

    def seekable(self) -> bool:
        """False: see the class."""
        return False


def open_audio(path: str) -> AudioFile:
    """Open an audio file or a slice of a stored zip archive.

    Raises:
        DecodeError: missing, empty, not an audio file, or corrupt.
    """
    try:
        file, offsets = split_slice(path)
        if os.path.getsize(file) == 0:
            raise DecodeError("empty file")
        return AudioFile(path if offsets is None else Slice(file, *offsets))
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"not readable as sound: {error.error_string}") from None
    except (OSError, ValueError) as error:
        raise DecodeError(str(getattr(error, "strerror", None) or error)) from None


def read_info(path: str) -> AudioInfo:
    """Frames and rate from the header.

    Raises:
        DecodeError: as :func:`open_audio`, or no samples.
    """
    with open_audio(path) as file:
        if file.frames <= 0:
            raise DecodeError("no samples")
        return AudioInfo(file.frames, file.samplerate)


def read_crop(path: str, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
    """Samples ``start`` to ``start + length``, as if the whole file had been resampled: float32, 1-d.

    Args:
        path: a file or a slice of a stored archive.
        sample_rate: sample rate of the result in Hz; ``start`` and ``length`` count samples at this rate.
        length: None for everything after ``start``; shortened at the end of the clip.

    Raises:
        DecodeError: unreadable, shorter than its header says, or NaN or infinite samples.
    """
    with open_audio(path) as file:
        return read_open_crop(file, sample_rate, start, length)


def read_open_crop(file: AudioFile, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
    """:func:`read_crop` of an open file."""
    rate = file.samplerate
    total = resampled_length(file.frames, rate, sample_rate)
    stop = total if length is None else min(start + length, total)
    if rate == sample_rate:
        return _finite(_read_frames(file, start, stop - start))
    # A crop resamples like the whole file only if it begins at an instant that has a sample at both rates.
    common = math.gcd(rate, sample_rate)
    from_step, to_step = rate // common, sample_rate // common  # samples between two such instants
    margin = int(RESAMPLER_MARGIN_SECONDS * rate)
    steps = max(0, start * rate // sample_rate - margin) // from_step
    first, last = steps * from_step, min(file.frames, math.ceil(stop * rate / sample_rate) + margin)
    samples = resample(_finite(_read_frames(file, first, last - first)), rate, sample_rate)
    crop = samples[start - steps * to_step : stop - steps * to_step]
    return np.pad(crop, (0, stop - start - len(crop)))  # soxr may round off the last sample of a clip


def _read_frames(file: AudioFile, start: int, count: int) -> np.ndarray:
    """Mono frames ``start:start + count``. In the last page of a Vorbis file they may be some 50 frames late."""
    try:
        if start > 0:
            file.seek(start)
        samples = file.read(count, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"corrupt: {error.error_string}") from None
    if len(samples) < count:
        raise DecodeError(f"ends before its {file.frames} samples")
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)


def _finite(samples: np.ndarray) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise DecodeError("NaN or infinite samples")
    return samples
