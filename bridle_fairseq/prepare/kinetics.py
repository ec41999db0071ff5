"""Lists of labelled clips: the official annotations of Kinetics, csv files with a header, and lines ``path label``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from bridle_fairseq.data.manifests.labels import read_csv
from bridle_fairseq.prepare.tables import Entry, read_names, read_table
from bridle_fairseq.utils.errors import InputError

OFFICIAL = ("label", "youtube_id", "time_start", "time_end")


def read_lists(lists: Mapping[str, Iterable[str | os.PathLike[str]]]) -> dict[str, Entry]:
    """The entry of each clip in the lists of each split.

    A clip is a path or Kinetics' name of it (``ID_000010_000020``). If all lists are of one split, entries have no
    split, and the validation split is to be drawn at random.

    Raises:
        InputError: a list is missing or of another format, or a clip has two labels or two splits.
    """
    single = sum(bool(list(paths)) for paths in lists.values()) == 1
    entries: dict[str, Entry] = {}
    for split, paths in lists.items():
        for path in paths:
            for clip, labels in _read(os.fspath(path)).items():
                entry = Entry(labels, "" if single else split)
                if entries.setdefault(clip, entry) != entry:
                    raise InputError(f"{os.fspath(path)}: {clip!r} is listed elsewhere with another label or split")
    return entries


def clip_names(clip: str) -> list[str]:
    """Possible names of a clip's file: its path, its bare name, its YouTube id."""
    bare = os.path.basename(clip)
    youtube_id = bare[:-14] if bare[-14:].replace("_", "").isdigit() and len(bare) == 25 else bare
    return [clip.removeprefix("./"), bare, youtube_id]


def _read(path: str) -> dict[str, list[str]]:
    """Class names of each clip in a list."""
    lines = read_names(path)
    header = [cell.strip() for cell in lines[0].split(",")] if lines else []
    if set(OFFICIAL) <= set(header):
        return _official(path, header)
    if len(header) > 1 and "label" in header:
        return {clip: list(entry.labels) for clip, entry in read_table(path, {"label": "label"}).items()}
    labels: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        clip, _, label = line.rpartition("," if "," in line else " ")
        if not clip.strip() or not label.strip():
            raise InputError(f"{path}, line {number}: {line[:80]!r}; expected 'path label' or 'path,label'")
        if labels.setdefault(clip.strip(), [label.strip()]) != [label.strip()]:
            raise InputError(f"{path}, line {number}: {clip.strip()!r} has another label further up")
    if not labels:
        raise InputError(f"{path}: no clips; expected a header, or lines 'path label' or 'path,label'")
    return labels


def _official(path: str, header: list[str]) -> dict[str, list[str]]:
    labels = {}
    for number, row in enumerate(read_csv(path)[1:], start=2):
        cells = dict(zip(header, row, strict=False))
        try:
            start, end = (int(float(cells[name])) for name in ("time_start", "time_end"))
            labels[f"{cells['youtube_id']}_{start:06d}_{end:06d}"] = [cells["label"]]
        except (KeyError, ValueError):
            raise InputError(f"{path}, row {number}: {', '.join(row)[:80]!r}; expected {', '.join(OFFICIAL)}") from None
    return labels
