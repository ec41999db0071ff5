"""Files inside stored (uncompressed) archives, zip or tar, addressed as in fairseq: ``x.zip:offset:length``."""

from __future__ import annotations

import io
import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SLICE = re.compile(r"^(.*\.(?:zip|tar)):([0-9]{1,18}):([0-9]{1,18})$", re.IGNORECASE | re.DOTALL)

READ_WHOLE = 1 << 20  # members up to this many bytes are read at once
READ_AHEAD = 1 << 18  # bytes per read of longer members
LOCAL_HEADER_BYTES, LENGTHS_AT = 30, 26  # of a zip member; the lengths of its name and extra field


def split_slice(path: str) -> tuple[str, tuple[int, int] | None]:
    """``x.zip:offset:length`` -> the archive and (offset, length) in bytes; any other path -> itself and None."""
    match = SLICE.match(path)
    if match is None:
        return path, None
    return match.group(1), (int(match.group(2)), int(match.group(3)))


class Slice(io.RawIOBase):
    """A stored member as a seekable file, for readers that do not read all of it.

    It reads few large ranges, because each read is a request if the archive is on network storage: a short member at
    once, a long one in ranges of :data:`READ_AHEAD` bytes. The first range is read on opening. soundfile opens files
    under a lock, so a read during its open would make threads wait for storage one after another.

    Raises:
        ValueError: the archive ends before the slice.
    """

    def __init__(self, archive: str, offset: int, length: int) -> None:
        self._handle = os.open(archive, os.O_RDONLY)
        self._offset, self._length, self._position = offset, length, 0
        if os.fstat(self._handle).st_size < offset + length:
            self.close()
            raise ValueError(f"bytes {offset} to {offset + length} are not in the archive")
        self._ahead = length if length <= READ_WHOLE else READ_AHEAD
        self._buffer, self._buffer_start = self._read_ahead(), 0

    def _read_ahead(self) -> memoryview:
        size = min(self._ahead, self._length - self._position)
        return memoryview(os.pread(self._handle, size, self._offset + self._position) if size else b"")

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill a buffer; fewer bytes only at the end."""
        target, done = memoryview(buffer).cast("B"), 0
        while done < len(target) and self._position < self._length:
            if not self._buffer_start <= self._position < self._buffer_start + len(self._buffer):
                self._buffer, self._buffer_start = self._read_ahead(), self._position
                if not self._buffer:  # the archive was truncated meanwhile
                    break
            data = self._buffer[self._position - self._buffer_start :][: len(target) - done]
            target[done : done + len(data)] = data
            self._position, done = self._position + len(data), done + len(data)
        return done

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position within the member."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = min(max(0, start + offset), self._length)
        return self._position

    def close(self) -> None:
        """Close the archive."""
        if not self.closed:
            os.close(self._handle)
        super().close()


ARCHIVES = (".zip", ".tar")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")


def archive_members(archive: str | os.PathLike[str]) -> Iterator[tuple[str, int, int] | tuple[str, str]]:
    """:func:`members` or :func:`tar_members`, by the ending of the name.

    Raises:
        InputError: see there, or a compressed tar archive.
    """
    archive = os.fspath(archive)
    if archive.lower().endswith(COMPRESSED):
        raise InputError(f"{archive}: a compressed archive; expected .tar or a stored .zip, whose files have offsets")
    return tar_members(archive) if archive.lower().endswith(".tar") else members(archive)


def tar_members(archive: str | os.PathLike[str]) -> Iterator[tuple[str, int, int] | tuple[str, str]]:
    """(name, offset, length) of every file in a tar archive; (name, reason) of what is no plain file, but no folder.

    Names are never opened or written, so they may be anything.

    Raises:
        InputError: not a tar archive, or damaged.
    """
    archive, end = os.fspath(archive), -1
    try:
        with tarfile.open(archive, "r:") as file:
            for member in file:
                if member.offset <= end or member.size < 0 or member.offset_data <= member.offset:
                    raise InputError(f"{archive}: damaged: {member.name!r} begins before the end of another file")
                end = member.offset
                file.members = []  # type: ignore[attr-defined]  # else it keeps them all
                if member.issparse() or not (member.isreg() or member.isdir()):
                    link = member.islnk() or member.issym()
                    kind = "a sparse file" if member.issparse() else "a link" if link else "a device"
                    yield member.name, f"{kind} in an archive; expected a plain file"
                elif not member.isdir():
                    yield member.name, member.offset_data, member.size
    except InputError:
        raise
    except Exception as error:  # a damaged archive can raise any exception
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{archive}: cannot read this archive: {reason}") from None


def members(archive: str | os.PathLike[str]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, length) of every file in a stored archive, in the archive's order.

    Raises:
        InputError: not a zip file, or a member is compressed or encrypted and cannot be read by its offset.
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


def _data_offset(raw: BinaryIO, header_offset: int) -> int:
    """Offset of a member's data: after its local header, its name and its extra field."""
    raw.seek(header_offset + LENGTHS_AT)
    name_length, extra_length = struct.unpack("<HH", raw.read(4))
    return header_offset + LOCAL_HEADER_BYTES + name_length + extra_length
