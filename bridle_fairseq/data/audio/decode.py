"""From an audio file to mono float32 samples at the model's rate; only the requested crop is read.

Reads whatever soundfile reads: wav, flac, ogg (Vorbis, Opus), mp3 and more, 8 to 32 bit, any rate, any number of
channels (mixed down by their mean). Opus files report, and decode at, the rate they were recorded with. What soundfile
does not read (m4a, aac, wma, amr and more) is read by PyAV if it is installed (:mod:`.foreign`).

A header can claim any length, or none (FLAC from a pipe, some MP3). No claim is allocated: files are read in blocks.

Lengths of lossy files are estimates (:mod:`.lengths`): what is decoded counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
import soundfile

from bridle_fairseq.data.audio.container import MAX_RATE
from bridle_fairseq.data.audio.foreign import ForeignFile, is_foreign
from bridle_fairseq.data.audio.lengths import LOSSY, is_close
from bridle_fairseq.data.audio.mp3 import EnlargedFile, lacks_frame_count
from bridle_fairseq.data.audio.resample import resample, resampled_length
from bridle_fairseq.data.audio.samples import unusable_sample
from bridle_fairseq.data.manifests.archive import Slice, split_slice
from bridle_fairseq.data.regular import check_regular
from bridle_fairseq.utils.errors import DecodeError

RESAMPLER_MARGIN_SECONDS = 0.1  # several times the one-sided support of soxr's HQ filter
VALUES_AT_ONCE = 1 << 20  # of all channels: what is read at a time
MAX_COUNTED = 1 << 30  # frames that are decoded to count them: 6 hours at 48 kHz
SEEK_FROM_SECONDS = 12  # shorter files are decoded to their end: libmpg123 warns on stderr after a seek
MAX_FRAMES_PER_BYTE = 8192  # in the densest coding, FLAC's of silence, 65535 frames take 13 bytes


class AudioInfo(NamedTuple):
    """Frames (samples per channel) of a file, at ``sample_rate``."""

    num_frames: int
    sample_rate: int


class AudioFile(soundfile.SoundFile):
    """An audio file for sequential reading.

    After every read, soundfile seeks to the position where the file already is. Opus decodes again for that, which
    costs up to 40 % of the time of a short clip. soundfile skips the seek for files that claim not to be seekable;
    seeking them still works.

    Attributes:
        num_frames: length in frames; None if it is not known.
    """

    num_frames: int | None = None
    guess: int | None = None  # libsndfile's, of an MP3 that does not state its frames

    @property
    def lossy(self) -> bool:
        """Whether lengths are estimates."""
        return self.subtype in LOSSY

    def seekable(self) -> bool:
        """False: see the class."""
        return False


Sound = AudioFile | ForeignFile


def open_audio(path: str, size: int | None = None) -> Sound:
    """Open an audio file or a slice of a stored zip archive.

    Args:
        path: the file.
        size: the manifest's number of frames: checked, and taken if the header does not state it. None: not known.
            ``num_frames`` is not larger.

    Raises:
        DecodeError: missing, empty, not an audio file, corrupt, or of another size.
    """
    try:
        name, offsets = split_slice(path)
        num_bytes = check_regular(name)
        file = _opened(path, name, offsets)
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"not readable as sound: {_reason(error)}") from None
    except (OSError, ValueError) as error:
        raise DecodeError(str(getattr(error, "strerror", None) or error)) from None
    try:
        _check_header(file, num_bytes if offsets is None else offsets[1], size)
    except DecodeError:
        file.close()
        raise
    return file


def _reason(error: soundfile.LibsndfileError) -> str:
    """libsndfile's reason. It takes a file whose bytes libmpg123 rejects for one that is not there."""
    return "no known format" if error.error_string.startswith("File does not exist") else error.error_string


def _opened(path: str, name: str, offsets: tuple[int, int] | None) -> Sound:
    """The file by libsndfile, or else by PyAV if it has one of its formats."""
    try:
        file = AudioFile(path if offsets is None else Slice(name, *offsets))
    except soundfile.LibsndfileError:
        if is_foreign(path):
            return ForeignFile(path)
        raise
    return _recounted(file, name, offsets) if file.format == "MP3" else file


def _recounted(file: AudioFile, name: str, offsets: tuple[int, int] | None) -> AudioFile:
    """The same MP3 file; opened again if its length is a guess."""
    source = open(name, "rb") if offsets is None else Slice(name, *offsets)
    if not lacks_frame_count(source):
        source.close()
        return file
    guess = file.frames
    file.close()
    file = AudioFile(EnlargedFile(source))
    file.guess = guess
    return file


def _check_header(file: Sound, num_bytes: int, size: int | None) -> None:
    """Set ``num_frames``, unless neither the header nor a manifest states it."""
    if file.samplerate > MAX_RATE:
        raise DecodeError(f"sample rate {file.samplerate} Hz; expected at most {MAX_RATE}")
    most = num_bytes * MAX_FRAMES_PER_BYTE
    if file.frames <= most and file.guess is None:
        if size is not None and not is_close(file.frames, size, file.samplerate, file.lossy):
            raise DecodeError(f"{file.frames} samples, the manifest says {size}")
        file.num_frames = file.frames if size is None else min(size, file.frames)
    elif size is not None and size > most:
        raise DecodeError(f"the manifest says {size} samples; expected at most {most} in {num_bytes} bytes")
    else:
        file.num_frames = size


def read_rate(path: str) -> int:
    """Sample rate in Hz, from the header.

    Raises:
        DecodeError: as :func:`open_audio`.
    """
    with open_audio(path) as file:
        return file.samplerate


def read_info(path: str, size: int | None = None, decoded: bool = False) -> AudioInfo:
    """Frames and rate from the header. A file that does not state its frames is decoded once to count them.

    Args:
        path, size: see :func:`open_audio`.
        decoded: the number of frames must be that of a decoder, not the manifest's or an MP3 header's.

    Raises:
        DecodeError: as :func:`open_audio`, or no samples.
    """
    with open_audio(path, size) as file:
        if file.num_frames is None or (decoded and file.num_frames > 0 and not _ends_as_stated(file)):
            file.num_frames = _count_checked(file)
        if file.num_frames <= 0:
            raise DecodeError("no samples")
        return AudioInfo(file.num_frames, file.samplerate)


def _ends_as_stated(file: Sound) -> bool:
    """Whether the last frame of an MP3, or of a file by PyAV, is there; other formats state what they have."""
    if file.format not in ("MP3", ForeignFile.format):
        return True
    assert file.num_frames is not None
    if file.num_frames < SEEK_FROM_SECONDS * file.samplerate:
        stated = file.num_frames
        with suppress(DecodeError):
            return sum(map(len, _mono_blocks(file, 0, stated))) == stated
        return False
    try:
        file.seek(file.num_frames - 1)
        return len(file.read(1)) == 1
    except soundfile.LibsndfileError:
        return False


def _count_checked(file: Sound) -> int:
    """Number of frames by decoding, at most the stated ones.

    Raises:
        DecodeError: fewer than stated, by more than an estimate may be wrong.
    """
    stated = file.num_frames
    with _corrupt():
        file.seek(0)
    found = _count_frames(file)
    with _corrupt():
        file.seek(0)
    if stated is None:
        return found
    # A guess depends on the file's bytes: if it still is the manifest's, the file is the one that was listed.
    if found < stated and stated != file.guess and not is_close(found, stated, file.samplerate, file.lossy):
        raise DecodeError(f"ends after {found} of its {stated} samples")
    return min(found, stated)


def read_crop(path: str, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
    """Samples ``start`` to ``start + length``, as if the whole file had been resampled: float32, 1-d.

    Args:
        path: a file or a slice of a stored archive.
        sample_rate: sample rate of the result in Hz; ``start`` and ``length`` count samples at this rate.
        length: None for everything after ``start``; shortened at the end of the clip.

    Raises:
        DecodeError: unreadable, shorter than its header says, or with samples that are not finite or absurdly large.
    """
    with open_audio(path) as file:
        return read_open_crop(file, sample_rate, start, length)


def read_open_crop(file: Sound, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
    """:func:`read_crop` of an open file."""
    if file.num_frames is None and length is None:
        file.num_frames = _count_frames(file)
        file.seek(0)
    rate = file.samplerate
    # A crop resamples like the whole file only if it begins at an instant that has a sample at both rates.
    common = math.gcd(rate, sample_rate)
    from_step, to_step = rate // common, sample_rate // common  # samples between two such instants
    margin = int(RESAMPLER_MARGIN_SECONDS * rate) if rate != sample_rate else 0
    steps = max(0, start * rate // sample_rate - margin) // from_step
    first = steps * from_step
    stop = None if length is None else start + length
    if file.num_frames is not None:
        total = resampled_length(file.num_frames, rate, sample_rate)
        stop = total if stop is None else min(stop, total)
    assert stop is not None
    stop = max(start, stop)
    last = math.ceil(stop * rate / sample_rate) + margin
    stated = file.num_frames
    samples = _read_frames(file, first, last - first)
    if (stated is None and len(samples) < last - first) or stated != file.num_frames:  # the end was found
        stop = max(start, min(stop, resampled_length(first + len(samples), rate, sample_rate)))
    crop = resample(samples, rate, sample_rate)[start - steps * to_step : stop - steps * to_step]
    missing = stop - start - len(crop)  # soxr may round off the last sample of a clip
    return np.pad(crop, (0, missing)) if missing else crop


def _read_frames(file: Sound, start: int, count: int) -> np.ndarray:
    """Mono frames ``start:start + count``, or up to the end.

    In the last page of a Vorbis file they may be some 50 frames late.
    """
    if file.num_frames is not None:
        count = min(count, file.num_frames - start)
    try:
        if start > 0 and count > 0:
            with _corrupt():
                file.seek(start)
        blocks = list(_mono_blocks(file, start, max(0, count)))
    except DecodeError:
        if not file.lossy or start == 0:
            raise
        blocks = [np.zeros(0, np.float32)]  # perhaps the end is before the start
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    if file.num_frames is not None and len(samples) < count:
        if not file.lossy:
            raise DecodeError(f"ends before its {file.num_frames} samples")
        file.num_frames = _count_checked(file)
        if len(samples) < min(count, file.num_frames - start):
            raise DecodeError(f"ends after {start + len(samples)} of its {file.num_frames} samples")
    return samples


def _mono_blocks(file: Sound, start: int, count: int) -> Iterator[np.ndarray]:
    """The next ``count`` frames, which begin at frame ``start``, in at least one block; fewer if the file ends."""
    at_once, done = max(1, VALUES_AT_ONCE // file.channels), 0
    integers = file.subtype.startswith("PCM_")  # read as -1 to 1
    while True:
        wanted = min(at_once, count - done)
        with _corrupt():
            block = file.read(wanted, dtype="float32", always_2d=True)
        unusable = None if integers else unusable_sample(block, start + done)
        if unusable:
            raise DecodeError(unusable)
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        done += len(block)
        if len(block) < wanted or done == count:
            return


@contextmanager
def _corrupt() -> Iterator[None]:
    """Convert errors of libsndfile."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"corrupt: {error.error_string or 'cannot seek'}") from None


def _count_frames(file: Sound) -> int:
    """Number of frames from the present position to the end, by decoding."""
    num_frames = sum(map(len, _mono_blocks(file, 0, MAX_COUNTED + 1)))
    if num_frames > MAX_COUNTED:
        raise DecodeError(f"states no length and has more than {MAX_COUNTED} frames")
    return num_frames
