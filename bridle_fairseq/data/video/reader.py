"""Decoding of video in a separate process: a file on which the decoder crashes, hangs or leaks does not end training.

Each reading process (usually a data loader worker) starts a decoding process when it first needs one. A file that kills
it is a :class:`DecodeError` like any other bad file, and the next file gets a new process. For throughput, use as many
workers as cores and one decoder thread each: decoding scales better over files than within a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.video.container import load_av
from bridle_fairseq.data.video.frames import VideoInfo
from bridle_fairseq.data.video.worker import DecodingProcess, ProcessEnded
from bridle_fairseq.utils.errors import DecodeError

EXTENSIONS = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "flv", "wmv", "ogv", "3gp", "gif")


class VideoReader:
    """Reads clips and headers. Not thread-safe. Forks and copies of it start their own processes.

    Args:
        threads: number of threads of the decoder.
        seconds: timeout per file.
        memory_limit: limit in bytes; a decoding process that uses more after a file is replaced.

    Raises:
        InputError: PyAV is not installed.
    """

    def __init__(self, threads: int = 1, seconds: float = 60.0, memory_limit: int = 256 << 20) -> None:
        load_av()
        self._threads, self._seconds, self._memory_limit = threads, seconds, memory_limit
        self._process: DecodingProcess | None = None

    def clips(
        self,
        path: str,
        places: Sequence[float],
        num_frames: int = 16,
        stride: int = 4,
        short_side: int | None = None,
        copy: bool = True,
    ) -> Tensor:
        """Clips of a file, uint8 clips x num_frames x height x width x 3 (RGB).

        Arguments as for :func:`bridle_fairseq.data.video.frames.read_clips`. Without ``copy``, the next request
        overwrites the clips.

        Raises:
            DecodeError: unreadable, corrupt, too slow, or two decoding processes died of it.
        """
        arguments = (path, [float(place) for place in places], num_frames, stride, short_side, self._threads)
        clips = torch.from_numpy(self._ask("clips", arguments))
        return clips.clone() if copy else clips

    def info(self, path: str) -> VideoInfo:
        """Properties of a file: see :func:`bridle_fairseq.data.video.frames.read_video_info`.

        Raises:
            DecodeError: as :meth:`clips`.
        """
        return self._ask("info", (path,))

    def sound_rate(self, path: str) -> int:
        """Sample rate of a file with sound, in Hz.

        Raises:
            DecodeError: as :meth:`clips`.
        """
        return self._ask("sound_rate", (path,))

    def sound(self, path: str, start: int, count: int) -> np.ndarray:
        """Samples ``start`` to ``start + count`` of a file, at its own rate: float32, mono; fewer at the end.

        Raises:
            DecodeError: as :meth:`clips`.
        """
        return self._ask("sound", (path, start, count)).copy()

    def _ask(self, what: str, arguments: Sequence[Any]) -> Any:
        ended = None
        for _ in range(2):  # the process may have died for another reason, such as the out-of-memory killer
            process = self._running()
            try:
                return process.ask(what, arguments, self._seconds)
            except ProcessEnded as error:
                self.close()
                ended = error
            except TimeoutError:
                self.close()
                raise DecodeError(f"not decoded within {self._seconds:g} s") from None
        raise DecodeError(f"two decoding processes died of it, the last one {ended}")

    def _running(self) -> DecodingProcess:
        if self._process is not None and (self._process.full or not self._process.ours):
            self.close()
        if self._process is None:
            self._process = DecodingProcess(self._memory_limit)
        return self._process

    @property
    def pid(self) -> int:
        """Of the decoding process, which is started if there is none."""
        return self._running().pid

    def close(self) -> None:
        """End the decoding process; the next request starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def __del__(self) -> None:
        if getattr(self, "_process", None) is not None:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None}


_idle: list[VideoReader] = []


@contextmanager
def borrowed_reader() -> Iterator[VideoReader]:
    """A reader for this thread's exclusive use; there are as many readers as threads that read at the same time.

    Raises:
        InputError: PyAV is not installed.
    """
    try:
        reader = _idle.pop()  # atomic, so there is no lock that a fork could inherit
    except IndexError:
        reader = VideoReader()
    try:
        yield reader
    finally:
        _idle.append(reader)


def count_frames(path: str) -> int:
    """Number of frames of a file, its size in a manifest. Thread-safe.

    Raises:
        DecodeError: the file is unusable.
    """
    with borrowed_reader() as reader:
        return reader.info(path).num_frames
