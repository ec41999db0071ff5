"""From a sound file to mono float32 samples at the wanted rate; only the part that is needed is read.

Whatever soundfile reads will do: wav, flac, ogg (Vorbis, Opus), mp3 and more, 8 to 32 bit, any rate, any number of
channels (mixed down by their mean). Opus files report, and decode at, the rate with which they were made.
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

RESAMPLER_MARGIN_SECONDS = 0.1  # what soxr's HQ filter sees on either side of a sample, several times over


class AudioInfo(NamedTuple):
    """What a file's header says: frames (samples of a channel) at ``sample_rate``."""

    num_frames: int
    sample_rate: int


class Sound(soundfile.SoundFile):
    """A sound file that is read forwards.

    soundfile seeks after every read to where the file already is; Opus decodes anew for that, which costs up to 40 % of
    the time of a short clip. What calls itself not seekable is spared it, and can seek all the same.
    """

    def seekable(self) -> bool:
        """No: see the class."""
        return False


def open_sound(path: str) -> Sound:
    """Open a sound file or a slice of a stored zip archive.

    Raises:
        DecodeError: missing, empty, no sound file, or corrupt.
    """
    try:
        file, piece = split_slice(path)
        if os.path.getsize(file) == 0:
            raise DecodeError("empty file")
        return Sound(path if piece is None else Slice(file, *piece))
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"not readable as sound: {error.error_string}") from None
    except (OSError, ValueError) as error:
        raise DecodeError(str(getattr(error, "strerror", None) or error)) from None


def read_info(path: str) -> AudioInfo:
    """Frames and rate from the header.

    Raises:
        DecodeError: as :func:`open_sound`; also a file without a sample.
    """
    with open_sound(path) as sound:
        if sound.frames <= 0:
            raise DecodeError("no samples")
        return AudioInfo(sound.frames, sound.samplerate)


def read_crop(path: str, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
    """Samples ``start`` to ``start + length`` of a file as if all of it had been resampled first: float32, 1-d.

    Args:
        path: a file or a slice of a stored archive.
        sample_rate: wanted, in Hz; ``start`` and ``length`` count in it.
        length: None for everything after ``start``; cut at the end of the clip.

    Raises:
        DecodeError: unreadable, ends before its header says, or has NaN or infinite samples.
    """
    with open_sound(path) as sound:
        return crop_of(sound, sample_rate, start, length)


def crop_of(sound: Sound, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
    """:func:`read_crop` of an open file."""
    rate = sound.samplerate
    total = resampled_length(sound.frames, rate, sample_rate)
    stop = total if length is None else min(start + length, total)
    if rate == sample_rate:
        return _finite(_read_frames(sound, start, stop - start))
    # A piece resamples as the whole does only when it begins where a sample of either rate falls on the same instant.
    common = math.gcd(rate, sample_rate)
    native_step, wanted_step = rate // common, sample_rate // common
    margin = int(RESAMPLER_MARGIN_SECONDS * rate)
    steps = max(0, start * rate // sample_rate - margin) // native_step
    first, last = steps * native_step, min(sound.frames, math.ceil(stop * rate / sample_rate) + margin)
    piece = resample(_finite(_read_frames(sound, first, last - first)), rate, sample_rate)
    piece = piece[start - steps * wanted_step : stop - steps * wanted_step]
    return np.pad(piece, (0, stop - start - len(piece)))  # soxr may round the last sample of a clip away


def _read_frames(sound: Sound, start: int, count: int) -> np.ndarray:
    """Mono frames ``start`` to ``start + count``. In the last page of a Vorbis file they may be some 50 frames late."""
    try:
        if start > 0:
            sound.seek(start)
        samples = sound.read(count, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"corrupt: {error.error_string}") from None
    if len(samples) < count:
        raise DecodeError(f"ends before its {sound.frames} samples")
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)


def _finite(samples: np.ndarray) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise DecodeError("NaN or infinite samples")
    return samples
