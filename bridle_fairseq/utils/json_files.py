"""The one reader of our JSON files. They may come from strangers: size, depth, numbers and texts are checked."""

from __future__ import annotations

import json
import math
import os
from typing import Any

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.schema import Kind, check
from bridle_fairseq.utils.text_files import reading

# Far more than we write: a description of features lists the skipped rows, 100 bytes each. As Python objects, so many
# values take at most 300 MB.
MAX_BYTES, MAX_VALUES, MAX_DEPTH = 1 << 25, 1 << 22, 64


def read_json(path: str | os.PathLike[str], what: str = "this file", finite: bool = True) -> Any:
    """The content of a JSON file.

    Args:
        path: path of the file.
        what: name of the file in messages.
        finite: refuse NaN and infinite numbers.

    Raises:
        InputError: the file is missing, or :func:`parse_json` refuses it.
    """
    path = os.fspath(path)
    try:
        with reading(path, what), open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        return parse_json(data, finite)
    except ValueError as error:
        raise InputError(f"{path}: cannot read {what}: damaged, no JSON of ours ({error})") from None


def read_description(prefix: str | os.PathLike[str], what: str, version: int, kind: Kind) -> dict[str, Any]:
    """The checked values of ``{prefix}.json``.

    Args:
        prefix: path without ``.json``.
        what: name of the described artifact in messages.
        version: version of the format.
        kind: of the content.

    Raises:
        InputError: the file is missing, damaged, of another version, or a value is not of its kind.
    """
    path, what = f"{os.fspath(prefix)}.json", f"this description of {what}"
    fields = read_json(path, what)
    if isinstance(fields, dict) and fields.get("version") != version:
        raise InputError(f"{path}: version {str(fields.get('version'))[:20]}; expected {version}")
    check(kind, "", fields, f"{path}: cannot read {what}")
    return fields


def parse_json(data: bytes, finite: bool = True) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not UTF-8 or not JSON, too large or too deep, a name that is there twice, a text with half a
            character, or (with ``finite``) a number that is not finite.
    """
    if len(data) > MAX_BYTES or sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise ValueError(f"more than {MAX_BYTES >> 20} MB or {MAX_VALUES} values")
    text = data.decode()
    numbers: dict[str, Any] = {"parse_float": _finite, "parse_constant": _finite} if finite else {}
    try:
        value = json.loads(text, object_pairs_hook=_unique, **numbers)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(value)
    if "\\ud" in text.lower():  # perhaps half of a surrogate pair, which no file or terminal can show
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]}; expected a finite one")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)[:40]!r} is there twice")
    return values


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            if isinstance(container, (dict, list))
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")
