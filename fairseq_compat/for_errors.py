"""Patch that ends a run with one sentence, without traceback, where the cause is known and lies outside the code."""

from __future__ import annotations

import contextlib
import errno
import functools
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, ModuleType
from typing import Any, NoReturn

USER_ERROR, LOST_RANK = 2, 1  # exit codes
TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)

TRAINING_COMMANDS = ("fairseq-hydra-train", "fairseq-train")
CHILD_SECONDS = 1.0  # for a child to end

# Texts of gloo, NCCL and torch's store when the process at the other end of a connection is gone or does not answer.
_LOST = re.compile(r"connection|remote process|broken pipe|timed? ?out|failed to recv|aborted", re.IGNORECASE)
# Texts of torch's data loader and shared tensors.
_SHARED_MEMORY = re.compile(
    r"killed by signal: Bus error|out of shared memory|unable to allocate shared memory|</torch_\w+>.*No space left"
)


class RunError(Exception):
    """Why a run cannot start or go on, in one sentence for its user."""


def name_known_errors(module: ModuleType) -> None:
    """Needed on every version: a full disk, a lost rank or Ctrl-C ends fairseq's commands with pages of traceback.

    The patch of ``fairseq.distributed.utils`` prints one sentence for these and for :class:`RunError`. All other
    exceptions keep their traceback. SIGTERM also ends the processes that the run started.
    """
    for name in ("call_main", "distributed_main"):
        setattr(module, name, _in_sentences(getattr(module, name)))


def end_imports_at_interrupt(module: ModuleType) -> None:
    """Needed on every version: Ctrl-C during the imports of fairseq_cli, which take seconds, ends in a traceback.

    The training commands end in one line until :func:`sentences` takes over.
    """
    command = os.path.basename(sys.argv[0]) if sys.argv else ""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if command not in TRAINING_COMMANDS or not in_main_thread or multiprocessing.parent_process() is not None:
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_interrupt)


def _end_at_interrupt(number: int, frame: FrameType | None) -> None:
    os.write(2, b"fairseq: interrupted\n")
    os._exit(128 + number)  # an exception could be taken for a failed import; nothing has been written yet


def _in_sentences(function: Any) -> Any:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with sentences():
            return function(*args, **kwargs)

    return run


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Ends the process with a sentence on stderr and an exit code if the block raises a known error."""
    _end_children_at_sigterm()
    if signal.getsignal(signal.SIGINT) is _end_at_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        _end_children()
        _end("interrupted", 128 + signal.SIGINT)
    except Exception as error:
        sentence, code = explain(error)
        if code == 0:
            raise
        _end(sentence and f"error: {sentence}", code)


def explain(error: BaseException) -> tuple[str, int]:
    """(sentence, exit code) of a known error; an empty sentence and 0 for any other."""
    if isinstance(error, RunError):
        return str(error), USER_ERROR
    text = str(error)
    if type(error).__name__ == "ProcessExitedException":  # a rank started by torch.multiprocessing.spawn
        code = getattr(error, "exit_code", 0)
        return ("" if code > 0 else f"{text}; it may have been killed for its memory"), (code if code > 0 else 1)
    if isinstance(error, OSError) and error.errno in TOO_MANY_FILES:
        return f"{text}; expected a higher limit of open files (ulimit -n), or fewer dataset.num_workers", USER_ERROR
    if _SHARED_MEMORY.search(text) or _is_full_shared_memory(error):
        return f"too little shared memory for data loader workers: {_shared_memory()}", USER_ERROR
    if _is_of_collective(error) and _LOST.search(text):
        return _lost_rank(text), LOST_RANK
    from fairseq_compat.for_hydra import explain_mistake

    mistake = explain_mistake(error)
    return mistake, USER_ERROR if mistake else 0


def _is_full_shared_memory(error: BaseException) -> bool:
    """Whether a lock or queue of multiprocessing could not be made in /dev/shm."""
    if not isinstance(error, OSError) or error.filename is not None or error.errno in TOO_MANY_FILES:
        return False
    modules, traceback = set(), error.__traceback__
    while traceback is not None:
        modules.add(traceback.tb_frame.f_globals.get("__name__"))
        traceback = traceback.tb_next
    return bool(modules & {"multiprocessing.synchronize", "multiprocessing.heap"})


def _shared_memory() -> str:
    try:
        size = f"/dev/shm has {shutil.disk_usage('/dev/shm').total / 2**20:.1f} MB"
    except OSError:
        size = "there is no /dev/shm"
    return f"{size}; expected a larger one (docker run --shm-size=8g), or dataset.num_workers=0"


def _is_of_collective(error: BaseException) -> bool:
    return type(error).__name__.startswith("Dist") or bool(re.search("gloo|NCCL|TCPStore", str(error)))


def _lost_rank(text: str) -> str:
    import torch

    mine, others = "this rank", "another rank"
    if torch.distributed.is_initialized():
        rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        mine, others = f"rank {rank} of {count}", f"rank {1 - rank}" if count == 2 else others
    line = next(line for line in text.splitlines() if _LOST.search(line))
    reason = re.sub(r"^\[\S+:\d+\] ", "", line).split(". ")[0].strip()[:200]
    return (
        f"{mine} lost its connection to {others} ({reason}); the output of that rank has the cause. "
        "The same command goes on from the last checkpoint"
    )


def print_and_exit(sentence: str) -> NoReturn:
    """End the process with a user's mistake in one sentence."""
    _end(f"error: {sentence}", USER_ERROR)


def _end(sentence: str, code: int) -> NoReturn:
    if sentence:
        print(f"fairseq: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def _end_children() -> None:
    children = multiprocessing.active_children()
    for end in (lambda child: child.terminate(), lambda child: child.join(CHILD_SECONDS)):
        for child in children:
            with contextlib.suppress(Exception):
                end(child)


def _end_children_at_sigterm() -> None:
    """Handle SIGTERM, unless something else does: data loader workers would notice the loss of their parent late."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:  # not a child that inherited this handler
            with contextlib.suppress(Exception):
                print("fairseq: stopped by SIGTERM", file=sys.stderr, flush=True)
                _end_children()
        os._exit(128 + number)  # an exception could be caught on its way

    signal.signal(signal.SIGTERM, end)
