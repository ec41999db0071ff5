"""A process that decodes video, and sound that needs FFmpeg, for another one: both ends, and their protocol.

The parent writes requests to the child's stdin and reads answers from its stdout, each a length and a text in JSON.
Frames and samples are passed in an anonymous file that both map into memory. The child is a new interpreter, not a
fork, so it inherits no threads, locks or memory. It ends when its stdin is closed, which happens whenever the parent
ends.

A file may take control of the decoder, so the parent believes nothing: an answer is short, has the form that was asked
for, and describes no more than the anonymous file holds, which the child can only enlarge.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
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

from bridle_fairseq.data.audio.container import MAX_RATE, SoundCache
from bridle_fairseq.data.video.container import MAX_ASPECT, MAX_PIXELS, OutOfMemory
from bridle_fairseq.data.video.frames import INFO_KINDS, VideoInfo, read_clips, read_video_info
from bridle_fairseq.utils.errors import DecodeError
from bridle_fairseq.utils.json_files import parse_json

LENGTH = struct.Struct("<Q")
MAX_ANSWER = 1 << 16  # bytes
DECODING_BYTES = 320 << 20  # the decoder's memory: with Python, the process stays below 500 MB
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
        """Send a request, ``"info"``, ``"clips"``, ``"sound_rate"`` or ``"sound"``, with its arguments.

        They are those of :func:`info`, :func:`clips`, :meth:`SoundCache.rate` and :meth:`SoundCache.read`. Clips and
        samples are an array in shared memory that the next request overwrites.

        Raises:
            DecodeError: the file is unusable.
            ProcessEnded: the child died.
            TimeoutError: no answer in time; the child is still working.
        """
        path, *others = arguments
        request = json.dumps([what, os.fsencode(path).decode("latin-1"), *others]).encode()
        try:
            self._stdin.write(LENGTH.pack(len(request)) + request)
            deadline = time.monotonic() + seconds
            (length,) = LENGTH.unpack(self._receive(LENGTH.size, deadline))
            if length > MAX_ANSWER:
                raise _Invalid
            answer = _parsed(self._receive(length, deadline))
            self.full = bool(answer.get("full"))
            if answer.get("out_of_memory"):  # perhaps that of earlier files
                raise ProcessEnded(f"needed more than {DECODING_BYTES >> 20} MB")
            if "error" in answer:
                raise DecodeError(str(answer["error"]))
            if what == "info":
                return _info_of(answer.get("value"))
            if what == "sound_rate":
                return _whole(answer.get("value"), 1, MAX_RATE)
            if what == "sound":
                count = _whole(answer.get("value"), 0, arguments[2])
                return self._frames.array((4 * count,)).view(np.float32)
            return self._frames.array(_shape_of(answer.get("value"), *arguments[1:5]))
        except (BrokenPipeError, EOFError):
            code = self._process.wait()
            raise ProcessEnded(
                f"ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
            ) from None
        except _Invalid:
            raise ProcessEnded("gave an answer that makes no sense") from None

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


class _Invalid(Exception):
    """An answer that the child's program does not give."""


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        answer = parse_json(data)
    except ValueError:
        raise _Invalid from None
    if not isinstance(answer, dict):
        raise _Invalid
    return answer


def _whole(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _Invalid
    return value


def _info_of(value: object) -> VideoInfo:
    if not isinstance(value, list) or len(value) != len(VideoInfo._fields):
        raise _Invalid
    info = VideoInfo(*value)
    if INFO_KINDS.problem("", info._asdict()):
        raise _Invalid
    return info


def _shape_of(
    value: object, places: Sequence[float], num_frames: int, stride: int, short_side: int | None
) -> tuple[int, ...]:
    """Clips x num_frames x height x width x 3, for these arguments of :func:`clips`."""
    if not isinstance(value, list) or len(value) != 5 or any(type(size) is not int for size in value):
        raise _Invalid
    height, width = value[2:4]
    if value[:2] != [len(places), num_frames] or value[4] != 3 or min(height, width) < 1:
        raise _Invalid
    most = MAX_PIXELS if short_side is None else (short_side + 1) ** 2 * (MAX_ASPECT + 1)
    if height * width > most:
        raise _Invalid
    return tuple(value)


class _SharedFrames:
    """An array in a file that two processes map. The child lets it grow as needed; only written pages take memory."""

    def __init__(self, handle: int, grows: bool = False) -> None:
        self._handle, self._grows = handle, grows
        self._map: mmap.mmap | None = None

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """The beginning of the file as uint8 of this shape."""
        size = math.prod(shape)
        if not size:
            return np.zeros(shape, np.uint8)
        if self._map is None or len(self._map) < size:
            if os.fstat(self._handle).st_size < size:
                if not self._grows:
                    raise _Invalid
                os.ftruncate(self._handle, size)
            self._map = mmap.mmap(self._handle, size)
        return np.frombuffer(self._map, np.uint8, size).reshape(shape)

    def close(self) -> None:
        """Close the file; its arrays stay valid."""
        os.close(self._handle)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # a mapped file that shrinks kills its readers
        return handle
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


# -- the child's end ---------------------------------------------------------------------------------------------------


def serve(handle: int, memory_limit: int) -> None:
    """Answer requests until stdin is closed or the memory limit is exceeded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with answers
    frames, sounds, full = _SharedFrames(handle, grows=True), SoundCache(), False
    _limit_memory()
    while not full:
        head = sys.stdin.buffer.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return
        what, path, *others = parse_json(sys.stdin.buffer.read(*LENGTH.unpack(head)))
        path = os.fsdecode(path.encode("latin-1"))  # a name in any encoding
        answer: dict[str, Any]
        try:
            answer = {"value": _answer(what, frames, sounds, path, others)}
        except (OutOfMemory, MemoryError):
            answer = {"out_of_memory": True}
        except DecodeError as error:
            answer = {"error": _text(str(error))}
        except Exception as error:  # an unforeseen bad file is listed like the others
            answer = {"error": _text(f"{type(error).__name__}: {error}")}
        answer["full"] = full = _memory() > memory_limit
        data = json.dumps(answer).encode()
        answers.write(LENGTH.pack(len(data)) + data)
        answers.flush()


def _answer(what: str, frames: _SharedFrames, sounds: SoundCache, path: str, others: list[Any]) -> Any:
    if what == "info":
        return info(path)
    if what == "clips":
        return clips(frames, path, *others)
    if what == "sound_rate":
        return sounds.rate(path)
    samples = sounds.read(path, *others)
    if len(samples):
        frames.array((samples.nbytes,))[:] = samples.view(np.uint8)
    return len(samples)


def _text(message: str) -> str:
    return message[:1000].encode(errors="replace").decode()


def _limit_memory() -> None:
    """Let allocations beyond :data:`DECODING_BYTES` fail. Linux only."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        limit = pages * resource.getpagesize() + DECODING_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except (OSError, ValueError):
        pass


def info(path: str) -> VideoInfo:
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
