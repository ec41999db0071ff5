"""Reads the JSON lines that fairseq logs with ``common.log_format=json``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import NamedTuple

_LINE = re.compile(r"\[(train_inner|valid)\]\[INFO\] - (\{.*\})\s*$")
_ERROR = re.compile(r"^(?:[\w.]*(?:Error|Exception|Interrupt)|bridle_fairseq: error): (.+)$")


class Record(NamedTuple):
    """What was logged at one update."""

    split: str  # "train" or "valid"
    update: int
    values: dict[str, float]


def parse_line(line: str) -> Record | None:
    """The record in a line of a training log; None when the line is something else.

    Taken are the running values every ``log_interval`` updates and the values of a validation, not the means over an
    epoch: an epoch may end in another stage than it began.
    """
    match = _LINE.search(line)
    if match is None:
        return None
    split = "valid" if match[1] == "valid" else "train"
    values = {}
    for name, value in json.loads(match[2]).items():
        try:
            values[name.removeprefix("valid_")] = float(value)
        except (TypeError, ValueError):
            continue  # null, or text such as "n/a"
    if "num_updates" not in values:
        return None
    return Record(split, int(values["num_updates"]), values)


def parse(lines: Iterable[str]) -> list[Record]:
    """All records of a log, in the order of their updates; a resumed run overwrites what it repeats."""
    found = {}
    for line in lines:
        record = parse_line(line)
        if record is not None:
            found[record.split, record.update] = record
    return sorted(found.values(), key=lambda record: record.update)


def last_error(lines: Iterable[str]) -> str:
    """The sentence in which a failed run says why: that of its last exception, else its last line."""
    kept = [line.strip() for line in lines if line.strip()]
    for line in reversed(kept):
        match = _ERROR.match(line)
        if match:
            return match[1]
    return kept[-1] if kept else "it printed nothing"


def series(records: Iterable[Record], name: str, split: str = "train") -> list[tuple[int, float]]:
    """(update, value) of one metric; updates at which it was not logged are left out."""
    return [(r.update, r.values[name]) for r in records if r.split == split and name in r.values]


def count_levels(records: Iterable[Record]) -> int:
    """K, from the metrics that are numbered by level (``acc_1``, ``acc_2``, ...)."""
    numbers = [int(m[1]) for r in records for name in r.values if (m := re.fullmatch(r"\w+_(\d+)", name))]
    return max(numbers, default=0)
