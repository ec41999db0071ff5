"""A command as a process: exit codes, signals, closed pipes."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bridle_fairseq.utils.errors import FULL_DISK, sentence_of

BAD_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT
CLOSED_PIPE = 128 + signal.SIGPIPE  # what a shell sees of "cat FILE | head -1"


def run_command(name: str, function: Callable[[], int | None]) -> int:
    """Run a command to its end and return its exit code.

    The code is 2, with one line on stderr, for an error that a user can fix; 130 for an interrupt; 128 and the signal's
    number for SIGTERM and SIGHUP, on which temporary files are removed as on any exception; 141, in silence, if the
    reader of a pipe has gone. Other exceptions pass.

    Args:
        name: of the command, in messages.
        function: the command; its exit code, None for 0.
    """
    _open_standard_files()
    interrupts: list[int] = []
    try:
        with _noting_interrupts(interrupts), _unwinding_on_termination(name):
            code = function() or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _interrupted(name)
    except Exception as error:
        if interrupts:  # modules in C, such as NumPy's, replace the KeyboardInterrupt
            return _interrupted(name)
        failure = _code_of(name, error)
        if failure is None:
            raise
        return failure


def _code_of(name: str, error: Exception) -> int | None:
    """The exit code for an error of a user or a closed pipe, after a line on stderr; None for others."""
    if isinstance(error, BrokenPipeError):
        if not (_reader_has_gone(1) or _reader_has_gone(2)):
            return None
        _discard(1, 2)
        return CLOSED_PIPE
    if isinstance(error, OSError) and error.filename is None and error.errno in FULL_DISK and _output_fails():
        return _failed(name, f"error: standard output: {error.strerror}", BAD_INPUT)
    sentence = sentence_of(error)
    return None if sentence is None else _failed(name, f"error: {sentence}", BAD_INPUT)


def run_script(function: Callable[[Any], None], args: Any) -> int:
    """Run a script's function with its arguments, as :func:`run_command` does, and return the exit code."""
    return run_command(os.path.basename(sys.argv[0]), lambda: function(args))


def ending_with_parent() -> Callable[[], None] | None:
    """What a child calls before it executes its program: it then gets SIGTERM when this process is killed.

    None where the system cannot do that; a child of a killed process goes on there.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    prctl, set_death_signal = ctypes.CDLL(None).prctl, 1
    return lambda: prctl(set_death_signal, signal.SIGTERM)


def _interrupted(name: str) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends the process at once
    return _failed(name, "interrupted", INTERRUPTED)


def _failed(name: str, text: str, code: int) -> int:
    """Print one line on stderr; the exit code."""
    try:
        print(f"{name}: {text}", file=sys.stderr, flush=True)
    except OSError:
        _discard(2)
    return code


def _open_standard_files() -> None:
    """Open the null device for a standard file that the caller has closed: the next file would take its number."""
    for stream in ("stdin", "stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "r" if stream == "stdin" else "w"))


@contextmanager
def _noting_interrupts(interrupts: list[int]) -> Iterator[None]:
    """Add the number of an interrupt to the list, besides raising KeyboardInterrupt; background jobs ignore it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        yield
        return
    former = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if not interrupts:
            signal.signal(signal.SIGINT, former)


@contextmanager
def _unwinding_on_termination(name: str) -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit in this process, so that unfinished files are removed."""
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != process:  # a forked worker: ends as if there were no handler
            os.kill(os.getpid(), number)
        raise SystemExit(_failed(name, f"stopped by {signal.Signals(number).name}", 128 + number))

    # nohup ignores SIGHUP, and so does the command then. Only the main thread may set handlers.
    in_main_thread = threading.current_thread() is threading.main_thread()
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if in_main_thread and signal.getsignal(n) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _reader_has_gone(descriptor: int) -> bool:
    """Whether a descriptor is a pipe that nobody reads."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _output_fails() -> bool:
    """Whether standard output cannot be written; what it holds is then discarded."""
    try:
        print(flush=True)
    except OSError:
        _discard(1)
        return True
    return False


def _discard(*descriptors: int) -> None:
    """Send what standard files still hold to the null device: Python writes it at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)
