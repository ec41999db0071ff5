"""Find the files of a modality in a folder or a stored zip archive, and read their sizes from their headers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from bridle_fairseq.data.manifests.archive import members
from bridle_fairseq.data.manifests.manifest import is_writable
from bridle_fairseq.utils.errors import DecodeError, InputError

FILES_AT_ONCE = 4096
UNWRITABLE = "name with a tab, a line break or bytes that are not UTF-8"
if sys.getfilesystemencoding() != "utf-8":
    UNWRITABLE += f" (or beyond {sys.getfilesystemencoding()}, the file system encoding: set PYTHONUTF8=1)"


class FoundFile(NamedTuple):
    """A file of a source."""

    name: str  # path below the folder or in the archive, as label tables have it
    path: str  # as manifests have it: the same for a folder, x.zip:offset:length for an archive


class Scan(NamedTuple):
    """Readable files of a source, their sizes as in manifests, and (path, reason) of unreadable files."""

    root: str
    files: list[FoundFile]
    sizes: list[int]
    failures: list[tuple[str, str]]


def find_files(
    source: str | os.PathLike[str], extensions: Collection[str], path_must_contain: str | None = None
) -> tuple[str, list[FoundFile]]:
    """Root folder and files of a folder (including subfolders and links) or a zip archive, sorted by name.

    Raises:
        InputError: no such source, a compressed archive, or no file with one of the extensions.
    """
    source = os.path.abspath(os.fspath(source))
    endings = tuple(f".{extension.lower().lstrip('.')}" for extension in extensions)
    if os.path.isdir(source):
        root, candidates = source, [FoundFile(name, name) for name in _walk(source)]
    elif os.path.isfile(source) and source.lower().endswith(".zip"):
        root, archive = os.path.split(source)
        candidates = [FoundFile(name, f"{archive}:{offset}:{size}") for name, offset, size in members(source)]
    else:
        raise InputError(f"{source}: no such folder or .zip archive")
    files = sorted(
        file
        for file in candidates
        if file.name.lower().endswith(endings) and (path_must_contain is None or path_must_contain in file.name)
    )
    if not files:
        condition = f" and {path_must_contain!r} in the path" if path_must_contain else ""
        raise InputError(f"{source}: no file found with extension {', '.join(endings)}{condition}")
    return root, files


def _walk(folder: str) -> Iterator[str]:
    """Relative paths of all files; each folder is visited once, even if links make a cycle."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below = os.path.relpath(parent, folder)
        yield from names if below == "." else (os.path.join(below, name) for name in names)


def read_sizes(
    root: str,
    files: Sequence[FoundFile],
    measure: Callable[[str], int],
    workers: int = 8,
    progress: Callable[[int], object] | None = None,
) -> Scan:
    """Read the size of each file in several threads; unreadable files are collected with their reasons.

    Args:
        root: folder of the files.
        files: the files.
        measure: path -> the size; raises :class:`DecodeError`.
        workers: number of threads.
        progress: called with numbers of finished files.
    """

    def size_or_reason(file: FoundFile) -> int | str:
        if not is_writable(file.path):
            return UNWRITABLE
        try:
            return measure(os.path.join(root, file.path))
        except DecodeError as error:
            return str(error)

    scan = Scan(root, [], [], [])
    remaining = iter(files)
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        while some := list(islice(remaining, FILES_AT_ONCE)):
            for file, result in zip(some, pool.map(size_or_reason, some), strict=True):
                if isinstance(result, int):
                    scan.files.append(file)
                    scan.sizes.append(result)
                else:
                    scan.failures.append((os.path.join(root, file.path), result))
            if progress is not None:
                progress(len(some))
    return scan
