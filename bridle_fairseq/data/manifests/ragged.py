"""Any number of numbers for each row, without an object for each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable


class Ragged:
    """Numbers of each row, one row after the other in memory.

    Args:
        rows: numbers of each row.
    """

    def __init__(self, rows: Iterable[Iterable[int]]) -> None:
        self._numbers, self._ends = array("i"), array("q", [0])
        for row in rows:
            self._numbers.extend(row)
            self._ends.append(len(self._numbers))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def numbers(self, row: int) -> list[int]:
        """Those of a row."""
        return self._numbers[self._ends[row] : self._ends[row + 1]].tolist()
