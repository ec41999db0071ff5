"""The classes of a data set (``labels.csv``) and of each row (``{split}.lbl``)."""

from __future__ import annotations

import csv
import os
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.text_files import read_lines, read_rows


class RaggedRows:
    """Any number of integers per row, concatenated in memory.

    Args:
        rows: integers of each row.
    """

    def __init__(self, rows: Iterable[Iterable[int]]) -> None:
        self._numbers, self._ends = array("i"), array("q", [0])
        for row in rows:
            self._numbers.extend(row)
            self._ends.append(len(self._numbers))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def numbers(self, row: int) -> list[int]:
        """The integers of a row."""
        return self._numbers[self._ends[row] : self._ends[row + 1]].tolist()


LONGEST_NUMBER = 100  # digits; Python converts no number of thousands of digits
HEADER = ["index", "mid", "display_name"]


class Classes:
    """The classes of a data set, in the order of its ``labels.csv`` (AudioSet's format, ``index,mid,display_name``).

    Attributes:
        ids: ``mid`` of each class, used in ``.lbl`` files.
        names: ``display_name`` of each class.
        source: the file, for messages.
    """

    def __init__(self, ids: Sequence[str], names: Sequence[str], source: str = "labels.csv") -> None:
        self.ids, self.names, self.source = list(ids), list(names), source
        self._numbers = {class_id: number for number, class_id in enumerate(self.ids)}
        if len(self._numbers) != len(self.ids):
            twice = next(class_id for number, class_id in enumerate(self.ids) if self._numbers[class_id] != number)
            raise InputError(f"{source}: class {twice[:60]!r} is listed twice; expected each once")

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Classes:
        """Classes with these names, sorted (numbers by value). The id is the name, with underscores for commas."""
        ordered = sorted(set(names), key=_number_or_name)
        return cls([" ".join(name.split()).replace(",", "_") for name in ordered], ordered)

    def __len__(self) -> int:
        return len(self.ids)

    def number(self, class_id: str) -> int | None:
        """Number of the class with this id; None if there is none."""
        return self._numbers.get(class_id)

    def find(self, text: str) -> int | None:
        """Number of the class with this id or else this name; None if there is none."""
        number = self.number(text)
        return self.names.index(text) if number is None and text in self.names else number

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Classes:
        """Read ``labels.csv``.

        Raises:
            InputError: missing, another header, no class, or a row with a wrong index.
        """
        path = os.fspath(path)
        rows = read_csv(path)
        header = [cell.strip() for cell in rows[0]] if rows else []
        if header != HEADER:
            raise InputError(f"{path}, line 1: {','.join(header)[:80]!r}; expected {','.join(HEADER)!r}")
        if len(rows) < 2:
            raise InputError(f"{path}: no class; expected a line for each after the header")
        for number, row in enumerate(rows[1:]):
            if len(row) != 3 or row[0].strip() != str(number):
                raise InputError(
                    f"{path}, class {number}: {','.join(row)[:60]!r}; expected '{number},mid,display_name'"
                )
        return cls([row[1].strip() for row in rows[1:]], [row[2].strip() for row in rows[1:]], path)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write ``labels.csv`` atomically."""
        with atomic_text(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows([number, *row] for number, row in enumerate(zip(self.ids, self.names, strict=True)))


class Labels(RaggedRows):
    """Class numbers of each row of a manifest, any number per row.

    Args:
        rows: class numbers of each row.
        classes: the classes.
    """

    def __init__(self, rows: Iterable[Iterable[int]], classes: Classes) -> None:
        super().__init__(rows)
        self.classes = classes

    def __getitem__(self, row: int) -> list[int]:
        """Class numbers of a row."""
        return self.numbers(row)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """All (row, class) pairs in order: the rows, and the class numbers."""
        return np.repeat(np.arange(len(self)), np.diff(np.asarray(self._ends))), np.array(self._numbers, dtype=np.int64)

    @property
    def single(self) -> bool:
        """Whether every row has exactly one class."""
        return bool((np.diff(np.asarray(self._ends)) == 1).all())

    def multi_hot(self, row: int) -> np.ndarray:
        """The classes of a row as float32: C, of 0 and 1."""
        target = np.zeros(len(self.classes), dtype=np.float32)
        target[self[row]] = 1.0
        return target

    def counts(self) -> np.ndarray:
        """Number of rows of each class: C int64."""
        return np.bincount(np.asarray(self._numbers), minlength=len(self.classes))

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], manifest: Manifest, classes: Classes, multi_label: bool = True
    ) -> Labels:
        """Read ``{split}.lbl``: line i has the class ids of the manifest's row i, separated by commas; empty: no class.

        Raises:
            InputError: missing, not as many lines as the manifest has rows, an unknown class, or, without
                ``multi_label``, a row without exactly one class.
        """
        path = os.fspath(path)
        lines = list(read_lines(path, "these labels", newline=None))
        if len(lines) != len(manifest):
            raise InputError(
                f"{path}: {len(lines)} lines; expected {len(manifest)}, one for each row of {manifest.name}"
            )
        labels = cls((_numbers(line, path, number, classes) for number, line in enumerate(lines, 1)), classes)
        if not multi_label and not labels.single:
            row = next(row for row in range(len(labels)) if len(labels[row]) != 1)
            raise InputError(
                f"{path}, line {row + 1}: {len(labels[row])} classes; expected exactly 1, unless task.multi_label is "
                "true"
            )
        return labels

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write ``{split}.lbl`` atomically."""
        with atomic_text(path) as file:
            for row in range(len(self)):
                file.write(",".join(self.classes.ids[number] for number in self[row]) + "\n")


def _number_or_name(name: str) -> tuple[int, int, str]:
    """Key to sort class names: numbers by value, before all others."""
    return (0, int(name), "") if name.isdecimal() and len(name) <= LONGEST_NUMBER else (1, 0, name)


def _numbers(line: str, path: str, line_number: int, classes: Classes) -> list[int]:
    numbers = []
    for class_id in filter(None, (text.strip() for text in line.split(","))):
        number = classes.number(class_id)
        if number is None:
            raise InputError(
                f"{path}, line {line_number}: unknown class {class_id[:60]!r}; expected one of the {len(classes)} ids "
                f"in {classes.source}"
            )
        numbers.append(number)
    return numbers


def read_csv(path: str | os.PathLike[str], skipinitialspace: bool = False) -> list[list[str]]:
    """Rows of a comma-separated file without empty ones; ``skipinitialspace``: ignore spaces after a comma.

    Raises:
        InputError: missing, not UTF-8, or not csv.
    """
    return [row for _, row in read_rows(path, "this csv file", skipinitialspace) if row]
