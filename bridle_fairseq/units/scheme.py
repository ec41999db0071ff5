"""Codes as units: sequences of numbers or characters for language models and other tools for discrete speech.

A row's codes are N x K, its patches **time-major**: all frequency patches of a time step, low frequencies first, then
those of the next step (images: row by row). Units keep that order. Three layouts turn N x K codes into lines. If
several levels share a line, code c of level k (from 1) is the unit (k - 1) x C + c.

* ``interleaved``: the K units of a patch, coarse to fine, then those of the next patch. One line per row.
* ``flattened``: level 1 of all patches, then level 2 of all patches, and so on. One line per row.
* ``separate``: one line per level and row, in a folder for each level, with units 0 to C - 1.

A single level is ``separate`` with that level only. As characters, a code is the same character in every layout: the
unit (k - 1) x C + c is the Unicode private-use character of that number, from U+F0000.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridle_fairseq.utils.errors import InputError

LAYOUTS = ("interleaved", "flattened", "separate")
PLANES = (0xF0000, 0x100000)  # the private-use planes 15 and 16
PLANE_SIZE = 0xFFFE  # the last two code points of each plane are not characters
LONGEST_ROW = 1 << 25  # units: 46 hours of sound at 200 units a second; a few digits of counts could ask for any memory
MAX_CHARACTERS = len(PLANES) * PLANE_SIZE


class UnitError(Exception):
    """Invalid units; the caller adds the file and the line."""


@dataclass(frozen=True)
class Scheme:
    """How the codes of a row become units.

    Attributes:
        num_codebooks: K.
        codebook_size: C.
        layout: one of :data:`LAYOUTS`.
        levels: used levels, from 1: all of them, or with ``separate`` a single one.
    """

    num_codebooks: int
    codebook_size: int
    layout: str
    levels: tuple[int, ...]

    @classmethod
    def of(cls, num_codebooks: int, codebook_size: int, level: str, layout: str) -> Scheme:
        """The scheme of the options ``--level`` (a number or "all") and ``--layout``.

        Raises:
            InputError: no such level.
        """
        if level == "all":
            return cls(num_codebooks, codebook_size, layout, tuple(range(1, num_codebooks + 1)))
        if not (level.isdecimal() and 1 <= int(level) <= num_codebooks):
            raise InputError(f"--level is {level!r}; expected a number from 1 to {num_codebooks}, or all")
        return cls(num_codebooks, codebook_size, "separate", (int(level),))

    @property
    def streams(self) -> int:
        """Number of lines per row, each in a separate file."""
        return len(self.levels) if self.layout == "separate" else 1

    @property
    def size(self) -> int:
        """Number of different units in a line."""
        return self.codebook_size * (1 if self.layout == "separate" else self.num_codebooks)

    @property
    def step(self) -> int:
        """Number of consecutive units that deduplication treats as one: those of a patch if they are interleaved."""
        return self.num_codebooks if self.layout == "interleaved" else 1

    def first_character(self, stream: int) -> int:
        """Number of the character of unit 0 of a stream."""
        return (self.levels[stream] - 1) * self.codebook_size if self.layout == "separate" else 0

    def units(self, codes: np.ndarray) -> list[np.ndarray]:
        """Codes of a row (n x K) -> units of each stream."""
        if self.layout == "separate":
            return [codes[:, level - 1] for level in self.levels]
        numbered = codes + np.arange(self.num_codebooks) * self.codebook_size  # n x K
        return [(numbered if self.layout == "interleaved" else numbered.T).reshape(-1)]

    def codes(self, streams: list[np.ndarray]) -> np.ndarray:
        """Units of each stream of a row -> its codes, n x levels.

        Raises:
            UnitError: invalid units.
        """
        sizes = {len(units) for units in streams}
        if len(sizes) > 1:
            raise UnitError(f"{' and '.join(map(str, sorted(sizes)))} units of its levels; expected as many of each")
        if self.layout == "separate":
            return np.stack([self._in_range(units, self.codebook_size) for units in streams], axis=1)
        (units,) = streams
        if len(units) % self.num_codebooks:
            raise UnitError(f"{len(units)} units; expected a multiple of the {self.num_codebooks} levels")
        self._in_range(units, self.size)
        shape = (-1, self.num_codebooks) if self.layout == "interleaved" else (self.num_codebooks, -1)
        numbered = units.reshape(shape) if len(units) else units.reshape(0, self.num_codebooks)
        numbered = numbered.T if self.layout == "flattened" and len(units) else numbered
        level, codes = np.divmod(numbered, self.codebook_size)
        wrong = np.argwhere(level != np.arange(self.num_codebooks))
        if len(wrong):
            patch, place = wrong[0].tolist()
            unit = int(numbered[patch, place])
            raise UnitError(f"unit {unit} of level {level[patch, place] + 1}; expected one of level {place + 1}")
        return codes

    @staticmethod
    def _in_range(units: np.ndarray, size: int) -> np.ndarray:
        bad = units[(units < 0) | (units >= size)]
        if len(bad):
            raise UnitError(f"unit {int(bad[0])}; expected 0 to {size - 1}")
        return units


def collapse(units: np.ndarray, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Deduplicate: the units without repetitions, and the length of each run.

    Args:
        units: their number is a multiple of ``step``.
        step: number of consecutive units that are compared as one.
    """
    steps = units.reshape(-1, step)
    is_first = np.ones(len(steps), bool)
    is_first[1:] = (steps[1:] != steps[:-1]).any(1)
    starts = np.flatnonzero(is_first)
    return steps[starts].reshape(-1), np.diff(np.append(starts, len(steps)))


def expand(units: np.ndarray, counts: np.ndarray, step: int = 1) -> np.ndarray:
    """Invert :func:`collapse`.

    Raises:
        UnitError: the counts do not fit the units.
    """
    if len(units) != len(counts) * step:
        raise UnitError(f"{len(units) // step} runs of units and {len(counts)} counts; expected as many of each")
    if len(counts) and counts.min() < 1:
        raise UnitError(f"the count {int(counts.min())}; expected at least 1")
    total = sum(counts.tolist()) * step  # as Python numbers, which do not overflow
    if total > LONGEST_ROW:
        raise UnitError(f"counts for {total} units; expected at most {LONGEST_ROW} in a row")
    return units.reshape(-1, step).repeat(counts, axis=0).reshape(-1)


def to_characters(numbers: np.ndarray) -> str:
    """Numbers from 0 to :data:`MAX_CHARACTERS` - 1 as private-use characters."""
    plane, place = np.divmod(numbers, PLANE_SIZE)
    return (np.array(PLANES)[plane] + place).astype("<u4").tobytes().decode("utf-32-le")


def from_characters(text: str) -> np.ndarray:
    """Invert :func:`to_characters`; any other character becomes -1."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
    numbers = np.full(len(points), -1)
    for number, first in enumerate(PLANES):
        inside = (points >= first) & (points < first + PLANE_SIZE)
        numbers[inside] = points[inside] - first + number * PLANE_SIZE
    return numbers
