"""Find the files of a modality in a folder or a stored archive, and read their sizes from their headers."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from bridle_fairseq.data.manifests.archive import ARCHIVES, COMPRESSED, archive_members
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

    @property
    def ending(self) -> str:
        """In lower case, with the dot; "" if there is none; ``._*`` for what macOS puts beside a file of that name."""
        name = os.path.basename(self.name)
        return "._*" if name.startswith("._") else os.path.splitext(name)[1].lower()

    def location(self, root: str) -> str:
        """Where the file is, and in an archive its name."""
        return os.path.join(root, self.path) + ("" if self.path == self.name else f" ({self.name})")


class Scan(NamedTuple):
    """Readable files of a source and their sizes as in manifests; other files, and what is no plain file."""

    root: str
    files: list[FoundFile]
    sizes: list[int]
    failures: list[tuple[str, str]]  # (path, reason) of unreadable files
    others: Sequence[FoundFile] = ()  # files of other extensions
    unnamed: int = 0  # files that no table names, and that were not read


class Source(NamedTuple):
    """What a folder or an archive contains, sorted by name."""

    root: str
    files: list[FoundFile]
    failures: list[tuple[str, str]]  # (path, reason) of what is no plain file


class NoFileError(InputError):
    """No file has one of the extensions; ``others`` are the files that are there."""

    def __init__(self, sentence: str, others: Sequence[FoundFile]) -> None:
        super().__init__(sentence)
        self.others = others


def list_source(source: str | os.PathLike[str]) -> Source:
    """All files of a folder (including subfolders, links, and .tar archives) or of a .zip or .tar archive.

    A file in an archive of a folder is named ``folder/x.tar/name``.

    Raises:
        InputError: no such source, or a compressed or damaged archive.
    """
    source = os.path.abspath(os.fspath(source))
    files: list[FoundFile] = []
    failures: list[tuple[str, str]] = []

    def add_archive(archive: str, path: str, prefix: str) -> None:
        for name, *place in archive_members(archive):
            if len(place) == 1:
                failures.append((f"{archive}/{name}", str(place[0])))
            else:
                files.append(FoundFile(prefix + name, f"{path}:{place[0]}:{place[1]}"))

    if os.path.isdir(source):
        root = source
        for name in _walk(source, failures):
            if name.lower().endswith(".tar"):
                add_archive(os.path.join(source, name), name, f"{name}/")
            else:
                files.append(FoundFile(name, name))
    elif os.path.isfile(source) and source.lower().endswith(ARCHIVES + COMPRESSED):
        root, archive = os.path.split(source)
        add_archive(source, archive, "")
    else:
        raise InputError(f"{source}: no such folder or .zip or .tar archive")
    return Source(root, sorted(files), failures)


def find_files(
    source: str | os.PathLike[str], extensions: Collection[str], path_must_contain: str | None = None
) -> tuple[str, list[FoundFile]]:
    """Root folder and files of a source (:func:`list_source`), sorted by name.

    Raises:
        InputError: as :func:`list_source`, or no file with one of the extensions.
    """
    listed = list_source(source)
    return listed.root, choose_files(source, listed.files, extensions, path_must_contain)[0]


def choose_files(
    source: str | os.PathLike[str],
    files: Sequence[FoundFile],
    extensions: Collection[str],
    path_must_contain: str | None = None,
) -> tuple[list[FoundFile], list[FoundFile]]:
    """The files with one of the extensions and with a text in their path, and the files with another extension.

    Raises:
        NoFileError: none.
    """
    endings = tuple(f".{extension.lower().lstrip('.')}" for extension in extensions)
    chosen: list[FoundFile] = []
    others: list[FoundFile] = []
    for file in files:
        if not file.name.lower().endswith(endings) or file.ending == "._*":
            others.append(file)
        elif path_must_contain is None or path_must_contain in file.name:
            chosen.append(file)
    if not chosen:
        condition = f" and {path_must_contain!r} in the path" if path_must_contain else ""
        there = f"; it has {count_endings(others)}" if others else ""
        place = os.path.abspath(os.fspath(source))
        raise NoFileError(f"{place}: no file found with extension {', '.join(endings)}{condition}{there}", others)
    return chosen, others


def count_endings(files: Sequence[FoundFile], shown: int = 8) -> str:
    """How many files have which ending, the most frequent first: ``3 .txt, 1 .csv``."""
    counts = Counter(file.ending[:20] or "without an ending" for file in files).most_common()
    text = ", ".join(f"{count} {ending}" for ending, count in counts[:shown])
    rest = sum(count for _, count in counts[shown:])
    return f"{text}, {rest} others" if rest else text


def _walk(folder: str, failures: list[tuple[str, str]]) -> Iterator[str]:
    """Relative paths of all files; each folder is visited once, even if links make a cycle.

    Folders that cannot be listed are added to ``failures``.
    """
    seen = set()

    def fail(error: OSError) -> None:
        failures.append((os.fsdecode(error.filename), f"a folder that cannot be listed: {error.strerror}"))

    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
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
                    scan.failures.append((file.location(root), result))
            if progress is not None:
                progress(len(some))
    return scan
