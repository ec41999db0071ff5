"""Labels in a file beside each media file, as in WebDataset: ``x.wav`` and ``x.cls``, ``x.txt`` or ``x.json``."""

from __future__ import annotations

import os

from bridle_fairseq.data.manifests.archive import Slice, split_slice
from bridle_fairseq.prepare.scan import FoundFile, Scan
from bridle_fairseq.prepare.tables import Entry
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.json_files import parse_json

LONGEST = 1 << 20  # bytes of such a file


def sibling_entries(scan: Scan, member: str) -> list[Entry | None]:
    """The entry of each file of a scan, with the label in the file beside it; None without such a file.

    Args:
        scan: the files; the labels are among its other files.
        member: ending of the files of labels, ``cls`` or ``txt``, or of JSON with a key, ``json:label``.

    Raises:
        InputError: no such file, or one that has no label.
    """
    ending, _, key = member.lstrip(".").partition(":")
    if ending == "json" and not key:
        raise InputError("--label-member is 'json'; expected a key of its objects too, such as json:label")
    beside = {file.name[: -len(ending) - 1]: file for file in scan.others if file.name.endswith(f".{ending}")}
    entries: list[Entry | None] = []
    for file in scan.files:
        folder, _, bare = file.name.rpartition("/")
        first = "/".join([*([folder] if folder else []), bare.split(".")[0]])  # WebDataset's key ends at the first dot
        found = beside.get(os.path.splitext(file.name)[0]) or beside.get(first)
        entries.append(None if found is None else Entry(_labels(scan.root, found, key)))
    if not any(entries):
        raise InputError(f"{scan.root}: no .{ending} file beside a media file, such as {scan.files[0].name!r}")
    return entries


def _labels(root: str, file: FoundFile, key: str) -> list[str]:
    path, offsets = split_slice(os.path.join(root, file.path))
    try:
        with open(path, "rb") if offsets is None else Slice(path, *offsets) as source:
            text = (source.read(LONGEST) or b"").decode("utf-8-sig").strip()
        value = parse_json(text.encode())[key] if key else text
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no key {key!r}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{os.path.join(root, file.name)}: no label in it ({reason}); see --label-member") from None
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int) and str(item).strip() for item in values):
        raise InputError(f"{os.path.join(root, file.name)}: {str(value)[:60]!r} as a label; expected a name or number")
    return [str(item).strip() for item in values]
