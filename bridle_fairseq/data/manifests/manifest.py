"""Manifests: which files a data set has, and how long each is.

A manifest is fairseq's ``{split}.tsv``: line 1 the root folder, then a row ``relative/path<TAB>size`` for each file.
The size counts samples **at the file's own rate** for audio, frames for video, 1 for images. Only the tab separates;
spaces belong to names. A path may be a slice of a stored zip archive, ``x.zip:offset:length``. An empty or relative
root is meant from the folder in which the manifest lies: a folder of manifests and media can be moved as one.
"""

from __future__ import annotations

import hashlib
import io
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np

from bridle_fairseq.data.manifests import manifest as manifest_rows
from bridle_fairseq.data.manifests.archive import split_slice
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text

BLOCK_BYTES = 1 << 24
LONGEST_SIZE = 18  # digits that always fit int64
NEWLINE, RETURN, TAB, ZERO = b"\n"[0], b"\r"[0], b"\t"[0], b"0"[0]


class Rows(NamedTuple):
    """Parsed rows: their paths one after the other, where each ends there, and their sizes."""

    text: bytes
    ends: np.ndarray  # int64
    sizes: np.ndarray  # int64


def blocks(file: IO[bytes]) -> Iterator[bytes]:
    """The rest of a file in blocks of whole lines."""
    while block := file.read(BLOCK_BYTES):
        yield block + file.readline()


def parse(block: bytes) -> Rows | None:
    """Rows ``path<TAB>size`` of whole lines; None where a line is anything else, which is to be looked at by itself."""
    data = np.frombuffer(block if block.endswith(b"\n") else block + b"\n", dtype=np.uint8)
    ends = np.flatnonzero(data == NEWLINE)
    tabs = np.flatnonzero(data == TAB)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if len(tabs) != len(ends) or (tabs <= starts).any() or (tabs >= ends).any() or (data == RETURN).any():
        return None
    sizes = _numbers(data, tabs + 1, ends)
    if sizes is None or not _is_utf8(block):
        return None
    steps = np.zeros(len(data), dtype=np.int8)
    steps[starts], steps[tabs] = 1, -1  # a tab is never a start: paths are not empty
    text = data[np.add.accumulate(steps, dtype=np.int8).astype(bool)].tobytes()
    return Rows(text, np.cumsum(tabs - starts), sizes)


def _numbers(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """The decimal numbers above 0 in these stretches of bytes; None where there is something else."""
    widths = ends - starts
    longest = int(widths.max(initial=0))
    if longest > LONGEST_SIZE or (widths < 1).any():
        return None
    values = np.zeros(len(starts), dtype=np.int64)
    for place in range(longest):
        there = widths > place
        digits = data[np.where(there, starts + place, 0)].astype(np.int64) - ZERO
        if ((digits < 0) | (digits > 9))[there].any():
            return None
        values = np.where(there, 10 * values + digits, values)
    return values if (values > 0).all() else None


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


CHECK_ALL_UP_TO = 100_000


class Manifest:
    """Rows of one split: a root folder, relative paths, sizes. Millions of rows take some 60 bytes each.

    Attributes:
        sizes: int64 array, a size for each row (see the module's docstring for its unit).
        root: as written in line 1.
        source: the file that was read, for messages; None when the manifest was made in memory.
    """

    def __init__(
        self, root: str | os.PathLike[str], paths: Iterable[str], sizes: Iterable[int], source: str | None = None
    ):
        self.root = os.fspath(root)
        self.source = source
        self._lines: np.ndarray | None = None  # of a selection: where its rows stand in the file
        self._text = bytearray()
        self._ends = array("q", [0])
        for path in paths:
            self._append(path.encode())
        self.sizes = np.fromiter(sizes, dtype=np.int64)
        if len(self.sizes) != len(self):
            raise ValueError(f"{len(self)} paths and {len(self.sizes)} sizes do not go together")

    def _append(self, path: bytes) -> None:
        self._text += path
        self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """(relative path, size) of each row."""
        return ((self.relative_path(row), int(self.sizes[row])) for row in range(len(self)))

    @property
    def name(self) -> str:
        """How messages name this manifest."""
        return self.source or "the manifest"

    def relative_path(self, row: int) -> str:
        """The path of a row as it is written in the manifest."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self._text[self._ends[row] : self._ends[row + 1]].decode()

    def path(self, row: int) -> str:
        """The path of a row with the root in front."""
        folder = os.path.dirname(os.path.abspath(self.source)) if self.source else ""
        return os.path.join(folder, self.root, self.relative_path(row))

    def line(self, row: int) -> int:
        """The line of the file in which a row stands."""
        return row + 2 if self._lines is None else int(self._lines[row])

    def select(self, rows: Sequence[int] | np.ndarray) -> Manifest:
        """A manifest of these rows, in this order; messages name them by their lines in this one's file."""
        paths = (self.relative_path(int(row)) for row in rows)
        chosen = Manifest(self.root, paths, self.sizes[rows], self.source)
        chosen._lines = np.array([self.line(int(row)) for row in rows], dtype=np.int64)
        return chosen

    def fingerprint(self) -> str:
        """sha256 of the rows, hex. The root is left out: the same data in another place is the same data."""
        digest = hashlib.sha256(self._text)
        digest.update(np.asarray(self._ends).astype("<i8").tobytes())
        digest.update(self.sizes.astype("<i8").tobytes())
        return digest.hexdigest()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read and check ``{split}.tsv``.

        Raises:
            InputError: the file is missing, not UTF-8 or has no rows, or a row is not ``path<TAB>size``, size > 0.
        """
        path = os.fspath(path)
        manifest = cls("", (), (), source=path)
        sizes = array("q")
        try:
            with open(path, "rb") as file:
                manifest.root = _decoded(file.readline(), path, 1)
                if "\t" in manifest.root:
                    raise InputError(f"{path}, line 1: {manifest.root[:80]!r}; expected the root folder, not yet a row")
                for block in manifest_rows.blocks(file):
                    rows = manifest_rows.parse(block)
                    if rows is not None:
                        manifest._ends.frombytes((rows.ends + len(manifest._text)).tobytes())
                        manifest._text += rows.text
                        sizes.frombytes(rows.sizes.tobytes())
                        continue
                    for number, line in enumerate(io.BytesIO(block), start=len(manifest) + 2):
                        name, size = _parsed(_decoded(line, path, number), path, number)
                        manifest._append(name.encode())
                        sizes.append(size)
        except OSError as error:
            raise InputError(f"{path}: cannot read this manifest: {error.strerror or error}") from None
        if not sizes:
            raise InputError(f"{path}: no rows; expected a root folder in line 1, then lines 'path<TAB>size'")
        manifest.sizes = np.frombuffer(sizes, dtype=np.int64)
        return manifest

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write ``{split}.tsv``, all of it or nothing.

        Raises:
            InputError: a path that a line of the format cannot hold.
        """
        if "\n" in self.root or "\t" in self.root:
            raise InputError(f"{self.root!r}: a root folder with a tab or a line break cannot stand in a manifest")
        with atomic_text(path) as file:
            file.write(f"{self.root}\n")
            for name, size in self:
                if not is_writable(name):
                    raise InputError(f"{name!r}: a path with a tab or a line break cannot stand in a manifest")
                file.write(f"{name}\t{size}\n")

    def check_files(self) -> None:
        """See that the files are there: all of them up to 100,000 rows, else as many spread over the manifest.

        Raises:
            InputError: the first row whose file is missing.
        """
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), CHECK_ALL_UP_TO)).astype(np.int64))
        archives: dict[str, bool] = {}
        for row in rows:
            path, piece = split_slice(self.path(int(row)))
            there = archives.get(path) if piece else None
            if there is None:
                there = os.path.isfile(path)
                if piece:
                    archives[path] = there
            if not there:
                raise InputError(f"{self.name}, line {self.line(int(row))}: no such file: {path}")


def is_writable(name: str) -> bool:
    """Whether a path can stand in a manifest: one line, no tab, UTF-8."""
    if "\t" in name or "\n" in name or "\r" in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(line: bytes, path: str, number: int) -> str:
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}, line {number}: {line[:60]!r} is not UTF-8") from None


def _parsed(line: str, path: str, number: int) -> tuple[str, int]:
    columns = line.split("\t")
    if len(columns) != 2 or not columns[0]:
        found = f"{len(columns)} column{'s' * (len(columns) != 1)} in {line[:80]!r}"
        raise InputError(f"{path}, line {number}: {found}; expected 2, 'path<TAB>size'")
    if not (columns[1].isascii() and columns[1].isdigit() and 0 < int(columns[1]) < 2**63):
        raise InputError(f"{path}, line {number}: size {columns[1][:40]!r}; expected a whole number of samples above 0")
    return columns[0], int(columns[1])
