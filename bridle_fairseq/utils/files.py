"""The ``.json`` file that stands beside what was made of a corpus, and says what it is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bridle_fairseq.utils.errors import InputError


@contextmanager
def fields_of(prefix: str | os.PathLike[str], what: str, version: int) -> Iterator[dict[str, Any]]:
    """The fields of ``{prefix}.json``, for a block that takes them apart.

    Args:
        prefix: path without ``.json``.
        what: is described, for the error.
        version: of the format.

    Raises:
        InputError: the file is missing, damaged, of another version, or not what the block expects.
    """
    path = f"{os.fspath(prefix)}.json"
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
        if fields.get("version") != version:
            raise InputError(f"{path}: version {fields.get('version')!r}; expected {version}")
        yield fields
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: cannot read this description of {what}: {error!r}") from None


def file_sha256(path: str) -> str:
    """sha256 of a file's bytes, hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
