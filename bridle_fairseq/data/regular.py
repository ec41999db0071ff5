"""What any media file must be before a decoder sees it."""

from __future__ import annotations

import os
import stat

from bridle_fairseq.utils.errors import DecodeError


def check_regular(path: str) -> int:
    """Size of a file in bytes. Reading a pipe or a device may block, or never end.

    Raises:
        DecodeError: missing, a folder, not a regular file, or empty.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise DecodeError(str(getattr(error, "strerror", None) or error)) from None
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError("a folder")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("not a regular file")
    if status.st_size == 0:
        raise DecodeError("empty file")
    return status.st_size
