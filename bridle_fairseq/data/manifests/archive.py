"""Files inside stored (uncompressed) zip archives, addressed as fairseq does: ``x.zip:offset:length``."""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
from collections.abc import Iterator

from bridle_fairseq.utils.errors import InputError

SLICE = re.compile(r"^(.*\.zip):(\d+):(\d+)$", re.IGNORECASE | re.DOTALL)

READ_WHOLE = 1 << 20  # bytes of a member that are asked for at once
READ_AHEAD = 1 << 18  # of a longer one, from wherever it is read


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


class Slice(io.RawIOBase):
    """A stored member as a file of its own, for readers that want parts of it.

    It is read in few large pieces, each of which is a request where the archive lies behind a network: a short member
    at once, a long one READ_AHEAD bytes from wherever somebody reads. The first piece is read at once: soundfile opens
    one file at a time, and threads that wait for storage would wait one after another.

    Raises:
        ValueError: the archive ends before the slice does.
    """

    def __init__(self, archive: str, offset: int, length: int) -> None:
        self._handle = os.open(archive, os.O_RDONLY)
        self._offset, self._length, self._place = offset, length, 0
        if os.fstat(self._handle).st_size < offset + length:
            self.close()
            raise ValueError(f"bytes {offset} to {offset + length} are not in the archive")
        self._ahead = length if length <= READ_WHOLE else READ_AHEAD
        self._piece, self._begin = self._read_piece(), 0

    def _read_piece(self) -> memoryview:
        size = min(self._ahead, self._length - self._place)
        return memoryview(os.pread(self._handle, size, self._offset + self._place) if size else b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Read as much as there is: fewer bytes than asked for mean the end."""
        wanted, done = memoryview(buffer).cast("B"), 0
        while done < len(wanted) and self._place < self._length:
            if not self._begin <= self._place < self._begin + len(self._piece):
                self._piece, self._begin = self._read_piece(), self._place
                if not self._piece:  # somebody has cut the archive meanwhile
                    break
            part = self._piece[self._place - self._begin :][: len(wanted) - done]
            wanted[done : done + len(part)] = part
            self._place, done = self._place + len(part), done + len(part)
        return done

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place of the member."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._length}[whence]
        self._place = min(max(0, start + offset), self._length)
        return self._place

    def close(self) -> None:
        """Close the archive."""
        if not self.closed:
            os.close(self._handle)
        super().close()


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
