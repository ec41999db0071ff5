"""Atomic writes, sha256, and the ``.json`` file that describes an artifact."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bridle_fairseq.utils.errors import InputError


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
    """A new file beside ``path`` that takes its place without an exception, and is removed with one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, encoding=encoding, newline=newline) as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp gives 0600
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextmanager
def fields_of(prefix: str | os.PathLike[str], what: str, version: int) -> Iterator[dict[str, Any]]:
    """The fields of ``{prefix}.json``, for a block that parses them.

    Args:
        prefix: path without ``.json``.
        what: name of the artifact in messages.
        version: version of the format.

    Raises:
        InputError: the file is missing, damaged, of another version, or the block cannot parse it.
    """
    path = f"{os.fspath(prefix)}.json"
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
        if fields.get("version") != version:
            raise InputError(f"{path}: version {fields.get('version')!r}; expected {version}")
        yield fields
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: cannot read this description of {what}: {error!r}") from None


def file_sha256(path: str) -> str:
    """sha256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
