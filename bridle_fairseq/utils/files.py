"""Atomic writes, and sha256."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bridle_fairseq.utils.errors import InputError

_TEMPORARY = ".tmp"  # ending of temporary files
_temporaries: dict[str, list[str]] = {}  # of folders: those that were there before this process wrote


@contextmanager
def atomic_text(path: str | os.PathLike[str]) -> Iterator[IO[str]]:
    """A UTF-8 text file that appears under its name only when it is complete."""
    with _replacing(Path(path), "w", encoding="utf-8", newline="\n") as file:
        yield file


@contextmanager
def atomic_binary(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name only when it is complete and on the disk."""
    with _replacing(Path(path), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _replacing(path: Path, mode: str, encoding: str | None = None, newline: str | None = None) -> Iterator[IO[Any]]:
    """A new file beside ``path`` that takes its place without an exception, and is removed with one.

    A failed write raises an OSError that names ``path``, whatever library wrote.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    handle, temporary = _temporary(path)
    lock = os.dup(handle)  # holds the lock until the file has its name
    try:
        with os.fdopen(handle, mode, encoding=encoding, newline=newline) as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp gives 0600
        os.replace(temporary, path)
    except BaseException as error:
        failure = _failure(error, path, temporary)
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        if failure is error:
            raise
        raise failure from error
    finally:
        os.close(lock)


def _temporary(path: Path) -> tuple[int, str]:
    """Make a temporary file for ``path`` that this process has locked; its handle and its path."""
    while True:
        try:
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
        except OSError as error:
            error.filename = os.fspath(path)
            raise
        with suppress(OSError):  # a file system without locks: its temporary files are never taken for stale
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(temporary):
            return handle, temporary
        os.close(handle)  # another process took it for stale before it was locked


def _remove_stale(path: Path) -> None:
    """Remove the temporary files for ``path`` of killed processes: those that nobody has locked.

    A folder is listed once in a process, as it may hold thousands of blocks.
    """
    folder = os.path.realpath(path.parent)
    if folder not in _temporaries:
        _temporaries[folder] = [name for name in os.listdir(folder) if name.endswith(_TEMPORARY)]
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}{re.escape(_TEMPORARY)}")
    for name in filter(pattern.fullmatch, _temporaries[folder]):
        with suppress(OSError), open(os.path.join(folder, name), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(file.name)


def _failure(error: BaseException, path: Path, temporary: str) -> BaseException:
    """The error of a failed write, with the path; numpy, torch and safetensors have errors of their own for it."""
    if isinstance(error, OSError) and error.errno is not None:
        if error.filename in (None, temporary):
            error.filename, error.filename2 = os.fspath(path), None
        return error
    if isinstance(error, Exception) and not isinstance(error, InputError):
        try:
            with open(temporary, "ab", buffering=0) as file:
                for _ in range(2):  # the first may write what there is room for
                    file.write(bytes(1 << 16))
                os.fsync(file.fileno())
        except OSError as full:
            full.filename = os.fspath(path)
            return full
    return error


def file_sha256(path: str) -> str:
    """sha256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
