"""Label tables: csv files that list media files with their classes, and matching them to the files of a scan."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bridle_fairseq.data.manifests.labels import read_csv
from bridle_fairseq.prepare.csv_files import read_exported
from bridle_fairseq.prepare.scan import FoundFile, Scan
from bridle_fairseq.prepare.table_paths import below_source
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.names import checked_name
from bridle_fairseq.utils.text_files import read_lines

USUAL_COLUMNS = {
    "name": ("path", "filename", "slice_file_name", "file", "name", "fname"),
    "label": ("label", "labels", "category", "class", "keyword"),
    "split": ("split",),
    "fold": (),
}
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
SPLIT_NAMES = {"training": "train", "val": "valid", "validation": "valid", "dev": "valid", "testing": "test"}


@dataclass(frozen=True)
class Entry:
    """A table's entry for one file: class names (or ids), and split and fold if the table has them."""

    labels: Sequence[str]
    split: str = ""
    fold: str = ""


def read_table(
    path: str | os.PathLike[str], columns: Mapping[str, str | None] | None = None, separator: str | None = None
) -> dict[str, Entry]:
    """Read a csv file with a header and a row for each media file: see :func:`.csv_files.read_exported`.

    Args:
        path: path of the csv file.
        columns: names of the columns ``name``, ``label``, ``split`` and ``fold``. By default common names are tried
            (``filename``, ``category``...); a split column is optional, a fold column is read only if it is named here.
        separator: separator of several classes in one cell; None: a cell is one class.

    Raises:
        InputError: a column is missing, a row is too short, a file is listed twice with different contents, or a split
            or fold cannot be the name of a file.
    """
    path = os.fspath(path)
    rows = read_exported(path, column_names(columns or {}))
    if len(rows) < 2:
        raise InputError(f"{path}: no rows; expected a header and a line for each file")
    header = [cell.strip() for cell in rows[0]]
    at = {what: column_of(path, header, what, (columns or {}).get(what)) for what in USUAL_COLUMNS}
    entries: dict[str, Entry] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise InputError(f"{path}, row {number}: {len(row)} columns; expected {len(header)} as in the header")
        name, cell, split, fold = (row[place].strip() if place is not None else "" for place in at.values())
        labels = [label.strip() for label in (cell.split(separator) if separator else [cell]) if label.strip()]
        for what, cell in (("split", split), ("fold", fold)):
            if cell:
                checked_name(cell, f"{path}, row {number}, {what}")
        entry = Entry(labels, SPLIT_NAMES.get(split, split), fold)
        if entries.setdefault(name, entry) != entry:
            raise InputError(f"{path}, row {number}: {name!r} is listed twice with different contents")
    return entries


def column_names(wanted: Mapping[str, str | None]) -> list[str]:
    """The names that columns of a table may have."""
    return [
        name for what, usual in USUAL_COLUMNS.items() for name in ([wanted[what] or ""] if wanted.get(what) else usual)
    ]


def column_of(path: str, header: list[str], what: str, wanted: str | None) -> int | None:
    """Index of the column for a name, label, split or fold; None if an optional one is missing."""
    for name in [wanted] if wanted else USUAL_COLUMNS[what]:
        if name in header:
            return header.index(name)
    if wanted is None and what in ("split", "fold"):
        return None
    expected = repr(wanted) if wanted else f"one of {', '.join(USUAL_COLUMNS[what])}, or --{what}-column"
    raise InputError(f"{path}: columns {', '.join(header)}; expected for the {what} {expected}")


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Lines of a list of files, without empty ones.

    Raises:
        InputError: the list is missing or not UTF-8.
    """
    return [line.strip() for line in read_lines(path, "this list", newline=None) if line.strip()]


def read_segments(path: str | os.PathLike[str]) -> dict[tuple[str, float, float], list[str]]:
    """Read AudioSet's list: (YouTube id, start, end in seconds) -> class ids. Lines that begin with # are comments.

    Raises:
        InputError: missing, or a line that is not ``id, start, end, "class,class"``.
    """
    segments = {}
    for row in read_csv(path, skipinitialspace=True):
        if row[0].startswith("#"):
            continue
        try:
            name, start, end, labels = row
            segments[name, float(start), float(end)] = [label for label in labels.split(",") if label]
        except ValueError:
            raise InputError(f"{path}: {', '.join(row)!r}; expected 'id, start, end, \"class,class\"'") from None
    return segments


def match(
    scan: Scan, entries: Mapping[Key, Value], candidates: Callable[[Key], Iterable[str]] | None = None
) -> list[Value | None]:
    """The table's entry of each file of a scan, or None.

    A file matches its path below the source and its bare name, each with or without extension. A name that matches two
    files is not used. Absolute paths, also of Windows, match below the folder that makes most of them match
    (:func:`~.table_paths.below_source`).

    Args:
        scan: the files.
        entries: the table.
        candidates: key of an entry -> possible names of its file; default: the key itself.

    Raises:
        InputError: no file has an entry.
    """
    rows = _rows_by_name(scan)
    below = {} if candidates else below_source(list(map(str, entries)), rows, scan.root)
    matched: list[Value | None] = [None] * len(scan.files)
    for key, entry in entries.items():
        names = candidates(key) if candidates else [below.get(str(key), str(key).removeprefix("./"))]
        row = next((rows[name] for name in names if rows.get(name, -1) >= 0), None)
        if row is not None:
            matched[row] = entry
    if not any(matched):
        raise InputError(
            f"{scan.root}: no file is named in the label table; it has names such as {next(iter(entries), '')!r}, the "
            f"folder such as {scan.files[0].name!r}"
        )
    return matched


def named_files(files: Sequence[FoundFile], names: Iterable[str]) -> list[FoundFile]:
    """The files that :func:`match` may take for one of the names of a table; the others need not be read."""
    bare = {_bare(text) for name in names for text in (name, name.replace("\\", "/"))}
    return [file for file in files if not bare.isdisjoint((_bare(file.name), _bare_stem(file.name)))]


def _rows_by_name(scan: Scan) -> dict[str, int]:
    """Row of each possible name of a file; -1 if two files match. Exact names override shortened ones."""
    rows: dict[str, int] = {}
    for shorten in (_bare_stem, _bare, _stem, str):
        level: dict[str, int] = {}
        for row, file in enumerate(scan.files):
            name = shorten(file.name.replace(os.sep, "/"))
            level[name] = -1 if name in level else row
        rows.update(level)
    return rows


def _bare(name: str) -> str:
    return name.rpartition("/")[2]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _bare_stem(name: str) -> str:
    return _stem(_bare(name))
