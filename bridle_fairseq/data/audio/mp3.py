"""MP3 files without a frame count.

libsndfile guesses their length from the file's size and the first frame's bit rate, and never decodes more than that.
The guess is too short for a variable bit rate, and too long for a file with a large tag. The count belongs into a frame
of its own at the beginning ("Xing" or "Info", http://gabriel.mp3-tech.org/mp3infotag.html).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SEARCHED = 1 << 16  # bytes after the tag in which the first frame begins
FRAMES_STATED = 1  # flag of the count
LAST_TAG = 128  # bytes at the end of a file, where a tag may be
ENLARGED = 1000  # above the ratio of any two bit rates


def lacks_frame_count(source: BinaryIO | io.RawIOBase) -> bool:
    """Whether a binary file's first frame is one of sound."""
    start = 0
    while True:  # tags in front
        source.seek(start)
        head = source.read(10) or b""
        if len(head) < 10 or head[:3] != b"ID3":
            break
        start += 10 + sum((byte & 127) << (7 * (3 - place)) for place, byte in enumerate(head[6:10]))
    source.seek(start)
    data = source.read(SEARCHED) or b""
    at = data.find(b"\xff")
    while 0 <= at < len(data) - 4 and not _is_header(data[at : at + 4]):
        at = data.find(b"\xff", at + 1)
    header = data[at : at + 4] if at >= 0 else b""
    if len(header) < 4 or not _is_header(header):
        return False
    tag = data[at + _tag_offset(header) :][:8]
    return not (tag[:4] in (b"Xing", b"Info") and len(tag) == 8 and tag[7] & FRAMES_STATED)


def _is_header(header: bytes) -> bool:
    """Whether these 4 bytes begin a frame of layer III."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    rate, bit_rate = header[2] >> 2 & 3, header[2] >> 4
    return header[0] == 255 and header[1] >= 224 and version != 1 and layer == 1 and rate < 3 and 0 < bit_rate < 15


def _tag_offset(header: bytes) -> int:
    """Where a frame count is in its frame: after the header and the side information."""
    first_version, mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    return 4 + ((17 if mono else 32) if first_version else (9 if mono else 17))


class EnlargedFile(io.RawIOBase):
    """A binary file that claims to be larger, so that libsndfile's guess is above the true length.

    It ends where the file ends, but has another end, of zeros, where decoders look for a tag. Closed with the file.
    """

    def __init__(self, source: BinaryIO | io.RawIOBase) -> None:
        self._source, self._position = source, 0
        self._size = source.seek(0, io.SEEK_END) * ENLARGED

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill a buffer; fewer bytes only at an end."""
        target = memoryview(buffer).cast("B")
        if self._position >= self._size - LAST_TAG:
            data = bytes(min(len(target), max(0, self._size - self._position)))
        else:
            self._source.seek(self._position)
            data = self._source.read(len(target)) or b""
        target[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def close(self) -> None:
        """Close the file."""
        self._source.close()
        super().close()
