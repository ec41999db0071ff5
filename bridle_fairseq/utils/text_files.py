"""Lines of our text files, which may come from strangers."""

from __future__ import annotations

import os
from collections.abc import Iterator

from bridle_fairseq.utils.errors import InputError


def read_lines(path: str | os.PathLike[str], what: str, newline: str | None = "\n") -> Iterator[str]:
    """The lines of a UTF-8 file without their ends, one in memory at a time.

    Args:
        path: path of the file.
        what: name of the content in messages.
        newline: what ends a line, as :func:`open` takes it.

    Raises:
        InputError: the file is missing, or a line is not UTF-8.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8", newline=newline) as file:
            for line in file:
                yield line.rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{path}: cannot read {what}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise not_utf8(path, what) from None


def not_utf8(path: str, what: str) -> InputError:
    """The error that names the first line of a file that is not UTF-8."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return InputError(f"{path}, line {number}: {line[:60]!r} is not UTF-8; expected {what} in UTF-8")
    return InputError(f"{path}: not UTF-8; expected {what} in UTF-8")
