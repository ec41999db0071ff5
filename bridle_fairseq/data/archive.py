"""Files inside stored (uncompressed) zip archives, addressed as fairseq does: ``x.zip:offset:length``."""

from __future__ import annotations

import os
import re
import struct
import zipfile
from collections.abc import Iterator

from bridle_fairseq.errors import InputError

SLICE = re.compile(r"^(.*\.zip):(\d+):(\d+)$", re.IGNORECASE | re.DOTALL)


def split_slice(path: str) -> tuple[str, tuple[int, int] | None]:
    """``x.zip:offset:length`` to the archive and (offset, length) in bytes; any other path to itself and None."""
    match = SLICE.match(path)
    if match is None:
        return path, None
    return match.group(1), (int(match.group(2)), int(match.group(3)))


def read_slice(archive: str, offset: int, length: int) -> bytes:
    """The bytes of a stored member.

    Raises:
        ValueError: the archive ends before the slice does.
    """
    with open(archive, "rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise ValueError(f"bytes {offset} to {offset + length} are not in the archive")
    return data


def members(archive: str | os.PathLike[str]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, length) of every file in a stored archive, in the archive's order.

    Raises:
        InputError: not a zip file, or a member is compressed or encrypted (it could not be read by its offset).
    """
    archive = os.fspath(archive)
    try:
        with zipfile.ZipFile(archive) as file, open(archive, "rb") as raw:
            for member in file.infolist():
                if member.is_dir():
                    continue
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise InputError(
                        f"{archive}: {member.filename!r} is compressed or encrypted; expected a stored archive (zip -0)"
                    )
                yield member.filename, _data_offset(raw, member.header_offset), member.file_size
    except (OSError, zipfile.BadZipFile, struct.error) as error:
        raise InputError(f"{archive}: cannot read this archive: {error}") from None


def _data_offset(raw, header_offset: int) -> int:  # type: ignore[no-untyped-def]
    """Where a member's bytes begin: after its local header (30 bytes), its name and its extra field."""
    raw.seek(header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", raw.read(4))
    return header_offset + 30 + name_length + extra_length
