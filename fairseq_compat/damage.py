"""Finds damaged checkpoint files. ``torch.save`` stores a CRC-32 of every record, which ``torch.load`` ignores."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import zipfile

ZIP = b"PK\x03\x04"
DAMAGED = "its contents are damaged"
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # begins files of torch.save before torch 1.6
DOS_FOLDER = 0x10  # an attribute of a record by which torch skips its contents
UNAVAILABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


def damage(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a file that ``torch.save`` wrote, in a few words; None if its checksums are right.

    Any change of a bit that ``torch.load`` reads is found. Files written before torch 1.6 have no checksums, and pass.

    Raises:
        OSError: the file cannot be opened or read.
    """
    if os.path.isdir(path):
        return "it is a folder"
    with open(path, "rb") as file:
        start = file.read(len(LEGACY))
    if not start:
        return "it is empty"
    if start == LEGACY:
        return None
    if not start.startswith(ZIP):
        return "it does not begin as a checkpoint does"
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                return "it is no file of torch.save"
            wrong = archive.testzip()
            if wrong is not None:
                return f"the checksum of {wrong} is wrong"
            if any(record.external_attr & DOS_FOLDER for record in archive.infolist()):
                return DAMAGED
        _open_with_torch(path)
    except Exception as error:  # a damaged archive can raise any exception
        if isinstance(error, OSError) and error.errno in UNAVAILABLE:
            raise
        return "its end is missing" if "not a zip file" in str(error) else DAMAGED
    return None


def _open_with_torch(path: str | os.PathLike[str]) -> None:
    """Read all but the tensors: torch is stricter than zipfile about fields that have no checksum."""
    import torch

    with contextlib.suppress(pickle.UnpicklingError):  # it is whole, but contains types that are not allowed
        torch.load(path, map_location="cpu", mmap=True, weights_only=True)
