"""Reads what fairseq logs: JSON lines (``common.log_format=json``), or the files of tensorboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
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


def parse_board(paths: Iterable[Path]) -> list[Record]:
    """The records in tensorboard's event files; those of a split lie in a folder of its name.

    The files are a sequence of length, checksum, message, checksum; only tensorboardX's message type is needed.
    """
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    found: dict[tuple[str, int], Record] = {}
    for path in paths:
        split = {"train_inner": "train", "valid": "valid"}.get(path.parent.name)
        data, start = path.read_bytes(), 0
        while split is not None and start + 12 <= len(data):
            size = int.from_bytes(data[start : start + 8], "little")
            try:
                event = Event.FromString(data[start + 12 : start + 12 + size])
            except DecodeError:  # the last message of a run that was killed
                break
            start += size + 16
            for value in event.summary.value:
                record = found.setdefault((split, event.step), Record(split, event.step, {}))
                record.values[value.tag] = float(value.simple_value)
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
