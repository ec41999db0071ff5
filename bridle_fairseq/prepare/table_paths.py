"""Files that a table names: absolute paths and paths of Windows, and rows whose file is not there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from bridle_fairseq.data.manifests.skipped import above_limit
from bridle_fairseq.prepare.scan import Scan
from bridle_fairseq.utils.errors import InputError

DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
ROWS_SHOWN = 5


def below_source(names: Sequence[str], files: Collection[str], root: str) -> dict[str, str]:
    """Names in a table that are absolute, or paths of Windows -> paths below the source.

    An absolute path of another machine is taken to be below one folder, the same for the whole table: the one that
    makes most of the names those of files, of several the deepest. So no file gets the row of another one.

    Args:
        names: all names of the table.
        files: names of the files of the source.
        root: the source.
    """
    slashed = {name: name.replace("\\", "/") for name in names if "\\" in name and name not in files}
    absolute = {name: path for name in names if DRIVE.match(path := slashed.get(name, name)) or path.startswith("/")}
    found = {name: path.removeprefix("./") for name, path in slashed.items() if name not in absolute}
    if not absolute:
        return found
    roots = [folder.rstrip("/") for folder in dict.fromkeys((root, os.path.realpath(root)))]
    common = os.path.commonprefix([path.split("/")[:-1] for path in absolute.values()])  # of lists of folders
    roots += ["/".join(common[:depth]) for depth in range(len(common), 0, -1)]

    def paths_below(folder: str) -> dict[str, str]:
        start = f"{folder}/"
        return {name: path[len(start) :] for name, path in absolute.items() if path.startswith(start)}

    best = max(map(paths_below, roots), key=lambda paths: sum(path in files for path in paths.values()))
    return found | best


def report_missing(
    rows: Mapping[str, object], matched: Sequence[object | None], scan: Scan, dest: str, max_skipped: float
) -> None:
    """Count the rows of a table without a readable file, and list them in ``skipped.tsv``.

    Args:
        rows: entries of the table, by file.
        matched: the entry of each file of the scan, or None.
        scan: the files.
        dest: folder of the list.
        max_skipped: share of the rows that may be without a file, as for unreadable files.

    Raises:
        InputError: too many.
    """
    used = {id(entry) for entry in matched if entry is not None}
    missing = [name for name, entry in rows.items() if id(entry) not in used]
    if not missing:
        return
    skip_list = Path(dest) / "skipped.tsv"
    skip_list.parent.mkdir(parents=True, exist_ok=True)
    with open(skip_list, "a", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(f"{name!r}\trow of a label table without a readable file of its own\n" for name in missing)
    shown = ", ".join(map(repr, missing[:ROWS_SHOWN]))
    said = f"{len(missing)} of {len(rows)} rows of the label tables have no readable file of their own, such as {shown}"
    above = above_limit(len(missing), len(rows), max_skipped)
    if above:
        raise InputError(f"{scan.root}: {said}, {above}; all of them: {skip_list}; see --max-skipped")
    print(f"{said}; all of them: {skip_list}", file=sys.stderr)
