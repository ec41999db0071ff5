"""Tables for readers: csv files that a spreadsheet can open without running what is in them.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break for a formula. Such a cell
gets an apostrophe, as OWASP recommends ("CSV injection"), unless it is a number.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Sequence

from bridle_fairseq.utils.files import atomic_text

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


def read_table(path: str | os.PathLike[str]) -> list[list[str]]:
    """The rows of a csv file of :func:`write_table`, as they were written."""
    with open(path, encoding="utf-8", newline="") as file:
        return [[_unescaped(cell) for cell in row] for row in csv.reader(file)]


def _escaped(cell: object) -> object:
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _unescaped(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
