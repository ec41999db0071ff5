"""Lines and rows of our text files, which may come from strangers."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager

from bridle_fairseq.utils.errors import InputError


@contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Convert errors of reading a file.

    Args:
        path: path of the file.
        what: name of the content in messages.

    Raises:
        InputError: the file cannot be read, or is not UTF-8.
    """
    path = os.fspath(path)
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot read {what}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise _not_utf8(path, what) from None


def read_lines(path: str | os.PathLike[str], what: str, newline: str | None = "\n") -> Iterator[str]:
    """The lines of a UTF-8 file without their ends, one in memory at a time.

    Args:
        path: path of the file.
        what: name of the content in messages.
        newline: what ends a line, as :func:`open` takes it.

    Raises:
        InputError: the file is missing, or a line is not UTF-8.
    """
    with reading(path, what), open(path, encoding="utf-8", newline=newline) as file:
        for line in file:
            yield line.rstrip("\r\n")


def read_rows(
    path: str | os.PathLike[str], what: str, skipinitialspace: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a csv file in UTF-8, each with the number of its last line, one in memory at a time.

    Args:
        path: path of the file.
        what: name of the content in messages.
        skipinitialspace: ignore spaces after a comma.

    Raises:
        InputError: the file is missing, not UTF-8 or not csv.
    """
    with reading(path, what), open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, skipinitialspace=skipinitialspace)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            line = f"{os.fspath(path)}, line {reader.line_num}"
            raise InputError(f"{line}: no csv ({error}); expected {what}") from None


def _not_utf8(path: str, what: str) -> InputError:
    """The error that names the first line of a file that is not UTF-8."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return InputError(f"{path}, line {number}: {line[:60]!r} is not UTF-8; expected {what} in UTF-8")
    return InputError(f"{path}: not UTF-8; expected {what} in UTF-8")
