"""Reads a checkpoint file that may come from a stranger: tensors no larger than the file, and plain values.

``torch.load(weights_only=True)`` alone is not enough here. What it accepts depends on what the process has allow-listed
for other files (:mod:`fairseq_compat` does so for fairseq's), it inflates compressed archives, and it gives tensors the
sizes that the file claims.
"""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import torch
from torch import Tensor

from bridle_fairseq.utils.errors import InputError

PICKLE, SCRIPT = "data.pkl", "constants.pkl"  # the latter: only in TorchScript, which torch.load would run
STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
# What the pickle in a checkpoint of this package refers to. torch calls these with any arguments that the file gives.
# They run nothing, and the tensors that they make are checked afterwards.
KNOWN = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", *(f"torch {name}Storage" for name in STORAGES)}
DOS_FOLDER = 0x10  # an attribute of a record by which torch skips its contents
LARGEST = 1 << 63  # whole number
MAX_VALUES, MAX_DEPTH = 1_000_000, 32  # plain values in a file; references can make them exponential in its size


def read_state(path: str) -> dict[str, Any]:
    """What a checkpoint file holds, except the optimizer's state: weights and plain values.

    Nothing in the file is called, looked up, interpolated or opened.

    Args:
        path: path of a regular file.

    Returns:
        ``model``: dense tensors on the CPU by name, together no larger than the file. ``cfg``, ``task_state``,
        ``extra_state`` and ``optimizer_history``, where they are in the file: None, booleans, numbers, strings, and
        lists and dictionaries of them.

    Raises:
        InputError: the file is not a checkpoint, or holds something else.
    """
    try:
        with open(path, "rb") as file:  # once: what is checked is what is loaded, even if a run replaces it meanwhile
            size = os.fstat(file.fileno()).st_size
            _check_archive(path, file, size)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # an invalid file can raise any exception
        raise not_a_checkpoint(path, error) from None
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise InputError(f"{path}: not a checkpoint that fairseq can load (no entry 'model')")
    # fairseq adds meters of any kind to extra_state, and copies of other entries under names of its own
    plain = {
        name: _Plain(path, str(name)).copy(value)
        for name, value in dict.items(state)
        if name in ("cfg", "task_state", "extra_state", "optimizer_history")
    }
    return {**plain, "model": _weights(path, state["model"], size)}


def not_a_checkpoint(path: str, error: Exception) -> InputError:
    """The error for a file that raises ``error`` when it is read."""
    return InputError(f"{path}: not a checkpoint that fairseq can load ({reason(error)})")


def reason(error: Exception) -> str:
    """The first sentence of an error, in one line; it may quote the file, so control characters are shown as ?."""
    text = " ".join(str(error).split()).split(". ")[0]
    return "".join(c if c.isprintable() else "?" for c in text[:160]) or type(error).__name__


def _check_archive(path: str, file: IO[bytes], size: int) -> None:
    """Check that an open file of ``size`` bytes is what ``torch.save`` writes, before torch reads it."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise InputError(
            f"{path}: not a checkpoint that fairseq can load (no zip archive, as torch.save writes it)"
        ) from None
    with archive:
        entries = archive.infolist()
        names = [entry.filename.lower() for entry in entries]  # torch looks names up without regard to case
        folders = {name.partition("/")[0] for name in names}
        if len(folders) != 1 or len(set(names)) != len(names):
            raise InputError(f"{path}: an archive with names in several folders or twice; expected torch.save's")
        if f"{min(folders)}/{SCRIPT}" in names:
            raise InputError(f"{path}: a TorchScript archive; expected torch.save's")
        if sum(entry.file_size for entry in entries) > size:
            raise InputError(f"{path}: an archive that is compressed or overlaps; expected torch.save's")
        wrong = archive.testzip()  # torch ignores the checksums
        if wrong is not None or any(entry.external_attr & DOS_FOLDER for entry in entries):
            raise InputError(f"{path}: damaged, the checksum of {wrong or 'its index'} is wrong")
        for name in _globals(archive.read(f"{entries[0].filename.partition('/')[0]}/{PICKLE}")):
            if name not in KNOWN:
                raise InputError(
                    f"{path}: refers to {name.replace(' ', '.', 1)[:80]!r}; expected a checkpoint of this package, "
                    "which holds tensors and plain values only"
                )


def _globals(pickled: bytes) -> Iterator[str]:
    """The names that a pickle refers to, as "module name"; of protocol 2, which torch.save writes."""
    for code, argument, _ in pickletools.genops(pickled):
        if code.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif code.proto > 2 or code.name in ("EXT1", "EXT2", "EXT4", "PERSID"):
            raise ValueError(f"a pickle with {code.name}; expected protocol 2")


def _weights(path: str, weights: dict[Any, Any], size: int) -> dict[str, Tensor]:
    """The entry ``model`` of a file of ``size`` bytes, checked."""
    left = size
    checked: dict[str, Tensor] = {}
    for name, value in dict.items(weights):  # an OrderedDict of a file can have an attribute ``items`` of its own
        if type(name) is not str or type(value) is not Tensor or value.layout != torch.strided:
            raise InputError(f"{path}: {str(name)[:80]!r} is no weight; expected dense tensors by name")
        left -= value.numel() * value.element_size()
        if left < 0 or value.is_quantized or value.device.type != "cpu":
            sizes = " x ".join(map(str, value.shape))[:80]
            raise InputError(f"{path}: {name[:80]!r} claims {sizes} values; expected weights no larger than the file")
        checked[name] = value.detach()
    return checked


class _Plain:
    """Copies values, and checks that they are plain and not too many.

    Args:
        path: path of the file.
        entry: name of the entry, for messages.
    """

    def __init__(self, path: str, entry: str) -> None:
        self.path, self.entry, self.left = path, entry, MAX_VALUES

    def copy(self, value: Any, depth: int = 0) -> Any:
        """The value, with dictionaries, lists and tuples as plain dictionaries and lists."""
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise InputError(f"{self.path}: the values of {self.entry!r} are too many or nested too deep")
        if value is None or type(value) in (bool, float, str) or type(value) is int and -LARGEST <= value <= LARGEST:
            return value
        if isinstance(value, dict):
            return {self._key(key): self.copy(item, depth + 1) for key, item in dict.items(value)}
        if type(value) in (list, tuple):
            return [self.copy(item, depth + 1) for item in value]
        if type(value) is Tensor and value.numel() == 1 and value.layout == torch.strided:  # of a meter
            return value.item()
        raise self._other(value)

    def _key(self, key: Any) -> Any:
        if type(key) not in (str, int):
            raise self._other(key)
        return key

    def _other(self, value: Any) -> InputError:
        kind = "int, of more than 64 bits," if type(value) is int else type(value).__name__
        return InputError(f"{self.path}: {self.entry!r} holds a value of type {kind}; expected plain values")
