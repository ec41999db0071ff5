"""Rows of a manifest, many at a time: millions of them are read in a second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np

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
