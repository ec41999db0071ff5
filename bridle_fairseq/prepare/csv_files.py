"""Tables as spreadsheets export them: comma, semicolon or tab; UTF-8, UTF-16, or the encoding of Windows."""

from __future__ import annotations

import codecs
import csv
import io
import os
import sys
from collections.abc import Sequence

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.text_files import reading

SEPARATORS = (",", ";", "\t")


def read_exported(path: str | os.PathLike[str], names: Sequence[str] = ()) -> list[list[str]]:
    """Rows of a table without empty ones. A table that is not in Unicode is read as cp1252, with a warning on stderr.

    Args:
        path: path of the table.
        names: names that columns may have; the separator is the one that gives the header most of them.

    Raises:
        InputError: the file cannot be read, or is no table.
    """
    path = os.fspath(path)
    with reading(path, "this csv file"), open(path, "rb") as file:
        text = _decoded(file.read(), path)
    separator = separator_of(text, names)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        return [row for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: no csv ({error}); expected this csv file") from None


def separator_of(text: str, names: Sequence[str]) -> str:
    """The separator of a table with a header: what gives it most of these names, else most columns; comma first."""
    first = text.lstrip("\r\n")[:100_000].splitlines()[:1]

    def rank(separator: str) -> tuple[int, int]:
        try:
            cells = [cell.strip() for cell in next(csv.reader(first, delimiter=separator), [])]
        except csv.Error:
            return 0, 0
        return len(set(cells) & set(names)), len(cells)

    return max(SEPARATORS, key=rank)  # the first one, if several rank equal


def _decoded(data: bytes, path: str) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = data.decode("cp1252", errors="replace")
        shown = text.splitlines()[line - 1][:60] if text.splitlines()[line - 1 : line] else ""
        print(
            f"warning: {path}, line {line}: not UTF-8; read as cp1252 (Windows, Latin-1): {shown!r}. Save it as UTF-8 "
            "if this looks wrong",
            file=sys.stderr,
        )
        return text
