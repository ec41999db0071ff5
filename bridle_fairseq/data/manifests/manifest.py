"""Manifests: the files of a data set and their sizes.

A manifest is fairseq's ``{split}.tsv``: line 1 is the root folder, every other line a row ``relative/path<TAB>size``.
The size counts samples **at the file's own rate** for audio, frames for video, and is 1 for images. Only the tab
separates; names may contain spaces. A path may be a slice of a stored zip archive, ``x.zip:offset:length``. An empty or
relative root is relative to the manifest's folder, so a folder of manifests and media can be moved as a whole.
"""

from __future__ import annotations

import hashlib
import io
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np

from bridle_fairseq.data.manifests.archive import split_slice
from bridle_fairseq.utils.bounds import LARGEST_SIZE
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.text_files import reading

BYTES_AT_ONCE = 1 << 24
LONGEST_PATH = 4096  # bytes, as in Linux
MAX_DIGITS = 18  # always fit int64
NEWLINE, RETURN, TAB, ZERO = b"\n"[0], b"\r"[0], b"\t"[0], b"0"[0]
CHECK_ALL_UP_TO = 100_000


class ParsedRows(NamedTuple):
    """Rows of a manifest."""

    text: bytes  # all paths, concatenated
    ends: np.ndarray  # int64: where each path ends in the text
    sizes: np.ndarray  # int64


def whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The rest of a file, some :data:`BYTES_AT_ONCE` of whole lines at a time."""
    while text := file.read(BYTES_AT_ONCE):
        yield text + file.readline()


def parse_rows(text: bytes) -> ParsedRows | None:
    """Parse whole lines ``path<TAB>size``; None if any line is invalid, to be found line by line."""
    data = np.frombuffer(text if text.endswith(b"\n") else text + b"\n", dtype=np.uint8)
    ends = np.flatnonzero(data == NEWLINE)
    tabs = np.flatnonzero(data == TAB)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (
        len(tabs) != len(ends)
        or (tabs <= starts).any()
        or (tabs >= ends).any()
        or ((data == RETURN) | (data == 0)).any()
    ):
        return None
    sizes = _parse_sizes(data, tabs + 1, ends)
    if sizes is None or (tabs - starts).max(initial=0) > LONGEST_PATH or not _is_utf8(text):
        return None
    steps = np.zeros(len(data), dtype=np.int8)
    steps[starts], steps[tabs] = 1, -1  # never at the same index: paths are not empty
    paths = data[np.add.accumulate(steps, dtype=np.int8).astype(bool)].tobytes()
    return ParsedRows(paths, np.cumsum(tabs - starts), sizes)


def _parse_sizes(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """The decimal numbers at ``data[start:end]``; None if any is not a number of the allowed sizes."""
    widths = ends - starts
    longest = int(widths.max(initial=0))
    if longest > MAX_DIGITS or (widths < 1).any():
        return None
    values: np.ndarray = np.zeros(len(starts), dtype=np.int64)
    for place in range(longest):
        inside = widths > place
        digits = data[np.where(inside, starts + place, 0)].astype(np.int64) - ZERO
        if ((digits < 0) | (digits > 9))[inside].any():
            return None
        values = np.where(inside, 10 * values + digits, values)
    return values if ((values > 0) & (values <= LARGEST_SIZE)).all() else None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


class Manifest:
    """Rows of one split: a root folder, relative paths, sizes. A row takes about 60 bytes of memory.

    Args:
        root: the root folder.
        paths: paths of the rows, relative to it.
        sizes: sizes of the rows (see the module's docstring for the unit).
        source: file that was read, for messages; None for a manifest made in memory.

    Attributes:
        sizes: int64 array.
        root, source: as above.
    """

    def __init__(
        self, root: str | os.PathLike[str], paths: Iterable[str], sizes: Iterable[int], source: str | None = None
    ):
        self.root = os.fspath(root)
        self.source = source
        self._lines: np.ndarray | None = None  # of a selection: lines of its rows in the file
        self._text = bytearray()
        self._ends = array("q", [0])
        for path in paths:
            self._append(path.encode())
        self.sizes = np.fromiter(sizes, dtype=np.int64)
        if len(self.sizes) != len(self):
            raise ValueError(f"{len(self)} paths and {len(self.sizes)} sizes; expected as many of each")

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
        """Name of this manifest in messages."""
        return self.source or "the manifest"

    def relative_path(self, row: int) -> str:
        """The path of a row as written in the manifest."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self._text[self._ends[row] : self._ends[row + 1]].decode()

    def path(self, row: int) -> str:
        """The path of a row, root included."""
        folder = os.path.dirname(os.path.abspath(self.source)) if self.source else ""
        return os.path.join(folder, self.root, self.relative_path(row))

    def line(self, row: int) -> int:
        """Line number of a row in the file."""
        return row + 2 if self._lines is None else int(self._lines[row])

    def select(self, rows: Sequence[int] | np.ndarray) -> Manifest:
        """A manifest of these rows, in this order; messages give their lines in this manifest's file."""
        paths = (self.relative_path(int(row)) for row in rows)
        chosen = Manifest(self.root, paths, self.sizes[rows], self.source)
        chosen._lines = np.array([self.line(int(row)) for row in rows], dtype=np.int64)
        return chosen

    def fingerprint(self) -> str:
        """sha256 of the rows, hex. The root is left out: data that was moved is the same data."""
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
        with reading(path, "this manifest"), open(path, "rb") as file:
            manifest.root = _decoded(file.readline(), path, 1)
            if "\t" in manifest.root or "\0" in manifest.root or len(manifest.root) > LONGEST_PATH:
                raise InputError(f"{path}, line 1: {manifest.root[:80]!r}; expected the root folder, not yet a row")
            for text in whole_lines(file):
                rows = parse_rows(text)
                if rows is not None:
                    manifest._ends.frombytes((rows.ends + len(manifest._text)).tobytes())
                    manifest._text += rows.text
                    sizes.frombytes(rows.sizes.tobytes())
                    continue
                for number, line in enumerate(io.BytesIO(text), start=len(manifest) + 2):
                    name, size = _parse_line(_decoded(line, path, number), path, number)
                    manifest._append(name.encode())
                    sizes.append(size)
        if not sizes:
            raise InputError(f"{path}: no rows; expected a root folder in line 1, then lines 'path<TAB>size'")
        manifest.sizes = np.frombuffer(sizes, dtype=np.int64)
        return manifest

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write ``{split}.tsv`` atomically.

        Raises:
            InputError: a root or path with a tab or a line break.
        """
        if "\n" in self.root or "\t" in self.root:
            raise InputError(f"{self.root!r}: cannot be written; expected a root folder without tab or line break")
        with atomic_text(path) as file:
            file.write(f"{self.root}\n")
            for name, size in self:
                if not is_writable(name):
                    raise InputError(f"{name!r}: cannot be written; expected a path in UTF-8 without tab or line break")
                file.write(f"{name}\t{size}\n")

    def check_files(self) -> None:
        """Check that the files exist: all of them up to 100,000 rows, else a sample of as many, evenly spaced.

        Raises:
            InputError: the first row whose file is missing.
        """
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), CHECK_ALL_UP_TO)).astype(np.int64))
        archives: dict[str, bool] = {}
        for row in rows:
            path, offsets = split_slice(self.path(int(row)))
            exists = archives.get(path) if offsets else None
            if exists is None:
                exists = os.path.isfile(path)
                if offsets:
                    archives[path] = exists
            if not exists:
                raise InputError(f"{self.name}, line {self.line(int(row))}: no such file: {path}")


def is_writable(name: str) -> bool:
    """Whether a manifest can hold a path: one line, no tab, UTF-8."""
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


def _parse_line(line: str, path: str, number: int) -> tuple[str, int]:
    columns = line.split("\t")
    if len(columns) != 2 or not columns[0]:
        count = f"{len(columns)} column{'s' * (len(columns) != 1)}"
        raise InputError(f"{path}, line {number}: {count} in {line[:80]!r}; expected 2, 'path<TAB>size'")
    if "\0" in columns[0] or len(columns[0].encode()) > LONGEST_PATH:
        raise InputError(
            f"{path}, line {number}: {columns[0][:80]!r} is no path; expected at most {LONGEST_PATH} bytes, none of "
            "them zero"
        )
    digits = columns[1].lstrip("0")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS and int(digits) <= LARGEST_SIZE):
        raise InputError(
            f"{path}, line {number}: size {columns[1][:40]!r}; expected a whole number of samples above 0 and at most "
            f"{LARGEST_SIZE}"
        )
    return columns[0], int(digits)
