"""Sound that libsndfile does not read (m4a, aac, wma, amr ...): an open file whose frames come from another process.

PyAV (FFmpeg) decodes it, in the process that decodes video (:mod:`bridle_fairseq.data.video.worker`): a file on which
the decoder crashes, hangs or leaks is a bad file like any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from bridle_fairseq.data.manifests.archive import split_slice
from bridle_fairseq.utils.errors import DecodeError, InputError

if TYPE_CHECKING:
    from bridle_fairseq.data.video.reader import VideoReader

SIGNATURES = (  # offset, bytes
    (4, b"ftyp"),  # m4a, mp4, mov, 3gp
    (0, b"\x1aE\xdf\xa3"),  # mka, webm
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # wma
    (0, b"#!AMR"),
    (0, b"caff"),
    (0, b"OggS"),
    (0, b"wvpk"),
    (0, b"TTA1"),
)
ADTS = (b"\xff\xf1", b"\xff\xf9", b"\xff\xf0", b"\xff\xf8")  # aac without a container


def is_foreign(path: str) -> bool:
    """Whether a file, or a slice of an archive, begins like one of these formats.

    Raises:
        OSError: it cannot be read.
    """
    name, offsets = split_slice(path)
    with open(name, "rb") as file:
        start = 0 if offsets is None else offsets[0]
        file.seek(start)
        head = file.read(16)
        if head[:3] == b"ID3" and len(head) >= 10:
            file.seek(start + 10 + sum((byte & 127) << (7 * (3 - place)) for place, byte in enumerate(head[6:10])))
            head = file.read(2)
    return head[:2] in ADTS or any(head[at : at + len(mark)] == mark for at, mark in SIGNATURES)


class ForeignFile:
    """An open file with the interface that :mod:`.decode` uses of soundfile: mono, of unknown length.

    Raises:
        DecodeError: unreadable, or PyAV is not installed.
    """

    format, subtype, channels = "PyAV", "", 1
    lossy = True  # lengths in such containers are estimates
    frames = (1 << 63) - 1  # not stated
    guess: int | None = None

    def __init__(self, path: str) -> None:
        self.path, self._position = os.path.abspath(path), 0
        self.num_frames: int | None = None
        with _reader() as reader:
            self.samplerate = reader.sound_rate(self.path)

    def __enter__(self) -> ForeignFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open here."""

    def seek(self, frame: int) -> int:
        """Set the position."""
        self._position = frame
        return frame

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next frames, n x 1 float32; fewer at the end."""
        with _reader() as reader:
            samples = reader.sound(self.path, self._position, frames)
        self._position += len(samples)
        return samples[:, None]


@contextmanager
def _reader() -> Iterator[VideoReader]:
    from bridle_fairseq.data.video.reader import borrowed_reader

    try:
        with borrowed_reader() as reader:
            yield reader
    except InputError:
        raise DecodeError("needs PyAV; install it: pip install 'bridle_fairseq[video]'") from None
