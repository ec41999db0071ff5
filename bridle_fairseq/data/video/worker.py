"""A process that decodes video for another one: both ends, and their protocol.

The parent writes requests to the child's stdin and reads answers from its stdout, each a length and a pickle. Frames
are passed in an anonymous file that both map into memory. The child is a new interpreter, not a fork, so it inherits no
threads, locks or memory. It ends when its stdin is closed, which happens whenever the parent ends.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridle_fairseq.data.video.frames import read_clips, read_video_info
from bridle_fairseq.utils.errors import DecodeError

LENGTH = struct.Struct("<Q")
ROOT = Path(__file__).parents[3]
PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from bridle_fairseq.data.video.worker import serve; "
    "serve(int(sys.argv[2]), int(sys.argv[3]))"
)


class ProcessEnded(Exception):
    """The child ended; the text says how, as the rest of a sentence."""


class DecodingProcess:
    """The parent's end.

    Args:
        memory_limit: limit in bytes; a child that uses more after an answer gets no further requests (``full``).
    """

    def __init__(self, memory_limit: int) -> None:
        self.full = False
        self._owner = os.getpid()
        handle = _nameless_file()
        self._frames = _SharedFrames(handle)
        command = [sys.executable, "-c", PROGRAM, str(ROOT), str(handle), str(memory_limit)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=(handle,)
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    @property
    def ours(self) -> bool:
        """Whether this process started the child; a fork of it must not use the child."""
        return self._owner == os.getpid()

    def ask(self, what: str, arguments: Sequence[Any], seconds: float) -> Any:
        """Send a request, ``"info"`` or ``"clips"``, with the arguments of the function of that name below.

        Clips are an array in shared memory that the next request overwrites.

        Raises:
            DecodeError: the file is unusable.
            ProcessEnded: the child died.
            TimeoutError: no answer in time; the child is still working.
        """
        request = pickle.dumps((what, arguments))
        try:
            self._stdin.write(LENGTH.pack(len(request)) + request)
            deadline = time.monotonic() + seconds
            (length,) = LENGTH.unpack(self._receive(LENGTH.size, deadline))
            answer, value, self.full = pickle.loads(self._receive(length, deadline))
        except (BrokenPipeError, EOFError):
            code = self._process.wait()
            raise ProcessEnded(
                f"ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
            ) from None
        if answer == "error":
            raise DecodeError(value)
        return self._frames.array(value) if what == "clips" else value

    def _receive(self, length: int, deadline: float) -> bytes:
        data = b""
        while len(data) < length:
            if not select.select([self._stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            received = self._stdout.read(length - len(data))
            if not received:
                raise EOFError
            data += received
        return data

    def close(self) -> None:
        """End the child; in a fork of its parent, only close the connection."""
        if self.ours:
            self._process.kill()
            self._process.wait()
        else:
            self._process.returncode = 0
        self._stdin.close()
        self._stdout.close()
        self._frames.close()


class _SharedFrames:
    """An array in a file that two processes map. It grows as needed; only written pages take memory."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._map: mmap.mmap | None = None

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """The beginning of the file as uint8 of this shape."""
        size = math.prod(shape)
        if self._map is None or len(self._map) < size:
            if os.fstat(self._handle).st_size < size:
                os.ftruncate(self._handle, size)
            self._map = mmap.mmap(self._handle, size)
        return np.frombuffer(self._map, np.uint8, size).reshape(shape)

    def close(self) -> None:
        """Close the file; its arrays stay valid."""
        os.close(self._handle)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


# -- the child's end ---------------------------------------------------------------------------------------------------


def serve(handle: int, memory_limit: int) -> None:
    """Answer requests until stdin is closed or the memory limit is exceeded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with answers
    frames, full = _SharedFrames(handle), False
    while not full:
        head = sys.stdin.buffer.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return
        what, arguments = pickle.loads(sys.stdin.buffer.read(*LENGTH.unpack(head)))
        try:
            answer = ("ok", info(*arguments) if what == "info" else clips(frames, *arguments))
        except DecodeError as error:
            answer = ("error", str(error))
        except Exception as error:  # an unforeseen bad file is listed like the others
            answer = ("error", f"{type(error).__name__}: {error}")
        full = _memory() > memory_limit
        data = pickle.dumps((*answer, full))
        answers.write(LENGTH.pack(len(data)) + data)
        answers.flush()


def info(path: str) -> Any:
    """See :func:`bridle_fairseq.data.video.frames.read_video_info`."""
    return read_video_info(path)


def clips(
    frames: _SharedFrames,
    path: str,
    places: Sequence[float],
    num_frames: int,
    stride: int,
    short_side: int | None,
    threads: int,
) -> tuple[int, ...]:
    """See :func:`bridle_fairseq.data.video.frames.read_clips`; writes to shared memory and returns the shape."""
    return read_clips(path, places, num_frames, stride, short_side, threads, frames.array).shape


def _memory() -> int:
    """Memory of this process in bytes; its peak if the system does not report the current value."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return pages * resource.getpagesize()
