"""Atomic writes, and sha256."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bridle_fairseq.utils.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where exported models are read but nothing is written
    fcntl = None  # type: ignore[assignment]

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


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Make a folder, and check that a file can be written there: before the work, not after it.

    Raises:
        OSError: it cannot; names the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _temporary(folder / "check", _make_file):
            pass
    except OSError as error:
        error.filename, error.filename2 = os.fspath(folder), None
        raise


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path``, to be moved there when it is complete; what is not moved is removed.

    A failed write raises an OSError that names ``path``, whatever library wrote.
    """
    with _temporary(path, os.mkdir) as temporary:
        yield Path(temporary)


@contextmanager
def locked(folder: str | os.PathLike[str], wait: bool = True) -> Iterator[bool]:
    """Lock a folder for this process; the lock of a killed process is released.

    Args:
        folder: the folder.
        wait: for a process that has locked it.

    Yields:
        False if there is no folder, or another process has locked it. True otherwise, and on a file system without
        locks.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        except OSError:
            held = True
        yield held
    finally:
        os.close(handle)


@contextmanager
def _replacing(path: Path, mode: str, encoding: str | None = None, newline: str | None = None) -> Iterator[IO[Any]]:
    """A new file beside ``path`` that takes its place without an exception, and is removed with one.

    The file's ``name`` is a path, for libraries that write by name. A failed write raises an OSError that names
    ``path``, whatever library wrote.
    """
    with _temporary(path, _make_file) as temporary:
        with open(temporary, mode, encoding=encoding, newline=newline) as file:
            yield file
        os.replace(temporary, path)


@contextmanager
def usual_permissions(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give a new file the permissions that open() gives, whatever a library gives it in this block."""
    with open(path, "xb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    yield
    os.chmod(path, mode)


def _make_file(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # tempfile would not follow the umask


@contextmanager
def _temporary(path: Path, make: Callable[[str], None]) -> Iterator[str]:
    """A temporary file or folder beside ``path``, locked until it has its name; then what is left of it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    while True:
        temporary = os.fspath(path.parent / f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        with _naming_failures(path):
            make(temporary)
        try:
            lock = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another process took it for stale before it was locked
        try:
            with suppress(OSError):  # a file system without locks: its temporary files are never taken for stale
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(temporary):
                continue
            with _naming_failures(path, temporary):
                yield temporary
            return
        finally:
            _remove(temporary)
            os.close(lock)


def _remove(path: str) -> None:
    """Remove a file or a folder, if it is there."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _remove_stale(path: Path) -> None:
    """Remove temporary files and folders for ``path`` of killed processes: those that nobody has locked.

    A folder is listed once in a process, as it may hold thousands of blocks.
    """
    folder = os.path.realpath(path.parent)
    if folder not in _temporaries:
        _temporaries[folder] = [name for name in os.listdir(folder) if name.endswith(_TEMPORARY)]
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}{re.escape(_TEMPORARY)}")
    for name in filter(pattern.fullmatch, _temporaries[folder]):
        stale = os.path.join(folder, name)
        with suppress(OSError):
            lock = os.open(stale, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(stale)
            finally:
                os.close(lock)


@contextmanager
def _naming_failures(path: Path, temporary: str | None = None) -> Iterator[None]:
    """Name ``path`` in OSErrors of writing ``temporary`` that have no path, or a path that is only temporary.

    numpy, torch and safetensors have errors of their own for a full disk; they become OSErrors.
    """
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        if error.errno is None and temporary is not None:
            _check_room(path, temporary, error)
        if error.filename is None or f"{path.parent / ('.' + path.name)}." in os.fsdecode(error.filename):
            error.filename, error.filename2 = os.fspath(path), None
        raise
    except Exception as error:
        if temporary is not None:
            _check_room(path, temporary, error)
        raise


def _check_room(path: Path, temporary: str, cause: Exception) -> None:
    """Raise an OSError that names ``path`` if nothing more can be written to ``temporary``."""
    number = re.search(r"\(os error (\d+)\)", str(cause))  # what Rust adds to its messages
    if number:
        raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path)) from cause
    target = os.path.join(temporary, "room") if os.path.isdir(temporary) else temporary
    try:
        with open(target, "ab", buffering=0) as file:
            for _ in range(2):  # the first may write what there is room for
                file.write(bytes(1 << 16))
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = os.fspath(path)
        raise error from cause


def file_sha256(path: str) -> str:
    """sha256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def size_text(num_bytes: int) -> str:
    """A size for people: ``7.3 MB``, ``2.5 kB``."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.1f} kB"
