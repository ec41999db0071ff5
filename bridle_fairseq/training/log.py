"""The one reader of training logs: JSON lines (``common.log_format=json``) and tensorboard files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from bridle_fairseq.utils.json_files import parse_json

_LINE = re.compile(r"\[(train_inner|valid)\]\[INFO\] - (\{.*\})\s*$")
_TIME = re.compile(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\]")
_ERROR = re.compile(r"^(?:[\w.]*(?:Error|Exception|Interrupt)|(?:bridle_)?fairseq: error): (.+)$")


class Record(NamedTuple):
    """The metrics that were logged at one update."""

    split: str  # "train" or "valid"
    update: int
    values: dict[str, float]
    logged_at: float | None = None  # seconds since the epoch


def parse_line(line: str) -> Record | None:
    """The record in a line of a training log; None if the line has none.

    Records are the running values every ``log_interval`` updates and those of validations. Means over an epoch are
    ignored, because a stage may end within an epoch.
    """
    match = _LINE.search(line)
    if match is None:
        return None
    split = "valid" if match[1] == "valid" else "train"
    values = {}
    try:
        logged = dict(parse_json(match[2].encode(), finite=False))
    except ValueError:  # a line that was cut off, or written by two processes at once
        return None
    for name, value in logged.items():
        try:
            values[name.removeprefix("valid_")] = float(value)
        except (TypeError, ValueError, OverflowError):
            continue  # null, or text such as "n/a"
    if not math.isfinite(values.get("num_updates", math.nan)):
        return None
    return Record(split, int(values["num_updates"]), values, _logged_at(line))


def _logged_at(line: str) -> float | None:
    """The time at the beginning of a line; None if there is none."""
    time = _TIME.match(line)
    try:
        return datetime.strptime(time[1], "%Y-%m-%d %H:%M:%S,%f").timestamp() if time else None
    except (ValueError, OverflowError):
        return None


def parse(lines: Iterable[str]) -> list[Record]:
    """All records of a log in the order of updates; of an update that a resumed run repeats, the last one."""
    records = {}
    for line in lines:
        record = parse_line(line)
        if record is not None:
            records[record.split, record.update] = record
    return sorted(records.values(), key=lambda record: record.update)


def read_log(path: Path) -> list[Record]:
    """:func:`parse` of a file."""
    return parse(path.read_text(encoding="utf-8", errors="replace").splitlines())


def parse_board(paths: Iterable[Path]) -> list[Record]:
    """The records in tensorboard event files; the folder of a file has the name of its split.

    An event file is a sequence of length, checksum, message, checksum; only tensorboardX's message type is needed.
    """
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    records: dict[tuple[str, int], Record] = {}
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
                record = records.setdefault((split, event.step), Record(split, event.step, {}))
                record.values[value.tag] = float(value.simple_value)
    return sorted(records.values(), key=lambda record: record.update)


def last_error(lines: Iterable[str]) -> str:
    """Why a run failed: the message of its last exception, else its last line."""
    printed = [line.strip() for line in lines if line.strip()]
    for line in reversed(printed):
        match = _ERROR.match(line)
        if match:
            return match[1]
    return printed[-1] if printed else "it printed nothing"


def series(records: Iterable[Record], name: str, split: str = "train") -> list[tuple[int, float]]:
    """(update, value) of one metric at the updates at which it was logged."""
    return [(r.update, r.values[name]) for r in records if r.split == split and name in r.values]


def count_levels(records: Iterable[Record]) -> int:
    """Number of code levels K, from the metrics that are numbered by level (``acc_1``, ``acc_2``, ...)."""
    numbers = [int(m[1]) for r in records for name in r.values if (m := re.fullmatch(r"\w+_(\d+)", name))]
    return max(numbers, default=0)
