"""Tables for readers: csv files that a spreadsheet can open without running what is in them.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break for a formula. Such a cell
gets an apostrophe, as OWASP recommends ("CSV injection"), unless it is a number.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.text_files import read_rows, reading

MAX_BYTES = 1 << 26  # of a table that is read: a confusion matrix of 5000 classes

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # the last four: full-width characters
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def write_table(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write the rows of a csv file atomically."""
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        for row in rows:
            cells = [_escaped(cell) for cell in row]
            # csv leaves a lone \r unquoted, and then reads it as the end of a row
            (quoting if any(isinstance(cell, str) and "\r" in cell for cell in cells) else writer).writerow(cells)


def read_cells(path: str | os.PathLike[str]) -> Iterator[list[str]]:
    """The rows of a csv file of :func:`write_table`, as they were written, one in memory at a time.

    Raises:
        InputError: the file cannot be read, is too large or not csv, or a row is not as long as the first one.
    """
    path, what, width = os.fspath(path), "this table", None
    with reading(path, what):
        if os.path.getsize(path) > MAX_BYTES:
            raise InputError(f"{path}: more than {MAX_BYTES >> 20} MB; expected a table of at most 5000 classes")
    for line, row in read_rows(path, what):
        width = len(row) if width is None else width
        if len(row) != width:
            raise InputError(f"{path}, line {line}: {len(row)} cells; expected {width}, as in line 1")
        yield [_unescaped(cell) for cell in row]


def _escaped(cell: object) -> object:
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _unescaped(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
