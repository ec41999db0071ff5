"""Codes as units: the numbers, characters and lines that language models and other tools for discrete speech take.

A row's codes are N x K, its patches **time-major**: all frequency patches of a time step, low ones first, then those of
the next step (images: row by row). Units keep that order. Three layouts turn N x K codes into lines; unit numbers begin
at 0, and where several levels share a line, code c of level k (from 1) is the unit (k - 1) x C + c:

* ``interleaved``: the K units of a patch, coarse to fine, then those of the next patch. One line a row.
* ``flattened``: level 1 of all patches, then level 2 of all patches, and so on. One line a row.
* ``separate``: each level is a set of units of its own, 0 to C - 1, in a folder of its own.

A single level is ``separate`` with that level alone. Where units are characters, a code has the same one in every
layout: the units (k - 1) x C + c are private characters of Unicode, from U+F0000 on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridle_fairseq.utils.errors import InputError

LAYOUTS = ("interleaved", "flattened", "separate")
PLANES = (0xF0000, 0x100000)  # the private planes 15 and 16
PLANE_SIZE = 0xFFFE  # the last two of each plane are no characters
MAX_CHARACTERS = len(PLANES) * PLANE_SIZE


class UnitError(Exception):
    """Units that are none of codes, in a few words; the caller knows the file and the line."""


@dataclass(frozen=True)
class Scheme:
    """How the codes of a row become units.

    Attributes:
        num_codebooks: K.
        codebook_size: C.
        layout: one of :data:`LAYOUTS`.
        levels: those whose codes are taken, from 1: all of them, or with ``separate`` a single one.
    """

    num_codebooks: int
    codebook_size: int
    layout: str
    levels: tuple[int, ...]

    @classmethod
    def of(cls, num_codebooks: int, codebook_size: int, level: str, layout: str) -> Scheme:
        """What ``--level`` (a number or "all") and ``--layout`` say.

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
        """Lines of a row, each in a file of its own."""
        return len(self.levels) if self.layout == "separate" else 1

    @property
    def size(self) -> int:
        """Number of different units in a line."""
        return self.codebook_size * (1 if self.layout == "separate" else self.num_codebooks)

    @property
    def step(self) -> int:
        """Units of a line that belong together, and repeat together."""
        return self.num_codebooks if self.layout == "interleaved" else 1

    def first_character(self, stream: int) -> int:
        """The number of the character that stands for unit 0 of a stream."""
        return (self.levels[stream] - 1) * self.codebook_size if self.layout == "separate" else 0

    def units(self, codes: np.ndarray) -> list[np.ndarray]:
        """Codes of a row (n x K) -> the units of each stream."""
        if self.layout == "separate":
            return [codes[:, level - 1] for level in self.levels]
        numbered = codes + np.arange(self.num_codebooks) * self.codebook_size
        return [(numbered if self.layout == "interleaved" else numbered.T).reshape(-1)]

    def codes(self, streams: list[np.ndarray]) -> np.ndarray:
        """The units of a row -> its codes, n x levels.

        Raises:
            UnitError: they are not units of codes.
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
            found = int(numbered[patch, place])
            of = found // self.codebook_size + 1
            raise UnitError(f"unit {found} of level {of}; expected one of level {place + 1}")
        return codes

    @staticmethod
    def _in_range(units: np.ndarray, size: int) -> np.ndarray:
        bad = units[(units < 0) | (units >= size)]
        if len(bad):
            raise UnitError(f"unit {int(bad[0])}; expected 0 to {size - 1}")
        return units


def collapse(units: np.ndarray, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Runs of equal steps as one each, and how long each run was.

    Args:
        units: their number is a multiple of ``step``.
        step: units that repeat together.
    """
    steps = units.reshape(-1, step)
    first = np.ones(len(steps), bool)
    first[1:] = (steps[1:] != steps[:-1]).any(1)
    places = np.flatnonzero(first)
    return steps[places].reshape(-1), np.diff(np.append(places, len(steps)))


def expand(units: np.ndarray, counts: np.ndarray, step: int = 1) -> np.ndarray:
    """What :func:`collapse` was given.

    Raises:
        UnitError: the counts are not of these units.
    """
    if len(units) != len(counts) * step:
        raise UnitError(f"{len(units) // step} runs of units and {len(counts)} counts; expected as many of each")
    if len(counts) and counts.min() < 1:
        raise UnitError(f"the count {int(counts.min())}; expected at least 1")
    return units.reshape(-1, step).repeat(counts, axis=0).reshape(-1)


def to_characters(numbers: np.ndarray) -> str:
    """Numbers from 0 to :data:`MAX_CHARACTERS` - 1 as private characters."""
    plane, place = np.divmod(numbers, PLANE_SIZE)
    return (np.array(PLANES)[plane] + place).astype("<u4").tobytes().decode("utf-32-le")


def from_characters(text: str) -> np.ndarray:
    """What :func:`to_characters` was given; another character gives a number that is no unit (-1)."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
    numbers = np.full(len(points), -1)
    for number, first in enumerate(PLANES):
        inside = (points >= first) & (points < first + PLANE_SIZE)
        numbers[inside] = points[inside] - first + number * PLANE_SIZE
    return numbers
