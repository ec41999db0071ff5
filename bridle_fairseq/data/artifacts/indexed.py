"""fairseq's memory-mapped indexed dataset (``.bin`` and ``.idx``), read and written without fairseq.

``.bin``: the items one after the other. ``.idx``: a header (magic, version 1, type code, number of items), then each
item's length (int32), then the byte at which it begins (int64). All numbers are little-endian.
Source: ``MMapIndexedDataset`` in fairseq 0.12.2.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary

MAGIC, VERSION = b"MMIDIDX\0\0", 1
HEADER = struct.Struct("<9sQBQ")
BYTES_PER_ITEM = 4 + 8
TYPE_CODES: dict[type[np.integer], int] = {np.int32: 4, np.uint16: 8}


class IndexedItems:
    """Items of a ``.bin`` file, read from the memory map. Pickled by path, for worker processes.

    Args:
        prefix: path without ``.bin`` and ``.idx``.
        dtype: type of the items, a key of :data:`TYPE_CODES`.

    Raises:
        InputError: the files are missing, damaged, empty, or of another type.
    """

    def __init__(self, prefix: str, dtype: type[np.integer]) -> None:
        self.prefix, self.dtype = prefix, dtype
        try:
            num_bytes = os.path.getsize(f"{prefix}.bin")
            with open(f"{prefix}.idx", "rb") as file:
                index = file.read()
        except OSError as error:
            raise InputError(f"{prefix}.idx: cannot read this index: {error}") from None
        magic, version, code, count = HEADER.unpack(index[: HEADER.size].ljust(HEADER.size))
        expected = (MAGIC, VERSION, TYPE_CODES[dtype], HEADER.size + BYTES_PER_ITEM * count)
        if (magic, version, code, len(index)) != expected:
            raise InputError(
                f"{prefix}.idx: damaged, or another kind of index; expected fairseq's memory-mapped format with "
                f"{np.dtype(dtype).name}"
            )
        self.sizes = np.frombuffer(index, "<i4", count, HEADER.size)
        self._begins = np.frombuffer(index, "<i8", count, HEADER.size + self.sizes.nbytes)
        indexed_bytes = np.dtype(dtype).itemsize * int(self.sizes.sum(dtype=np.int64))
        if num_bytes != indexed_bytes or num_bytes == 0:
            raise InputError(
                f"{prefix}.bin: {num_bytes} bytes; expected the {indexed_bytes} of its .idx, and more than 0"
            )
        # An item begins where the one before it ends: no address can lie outside of the file.
        begins = np.dtype(dtype).itemsize * (self.sizes.cumsum(dtype=np.int64) - self.sizes)
        if (self.sizes < 0).any() or (self._begins != begins).any():
            item = int(((self.sizes < 0) | (self._begins != begins)).argmax())
            raise InputError(
                f"{prefix}.idx, item {item + 1}: {self.sizes[item]} values from byte {self._begins[item]}; expected 0 "
                f"or more from byte {begins[item]}"
            )
        self._bytes = np.memmap(f"{prefix}.bin", mode="r")

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, number: int) -> np.ndarray:
        """The values of an item: n, int64."""
        little_endian = np.dtype(self.dtype).newbyteorder("<")
        values = np.frombuffer(self._bytes, little_endian, int(self.sizes[number]), int(self._begins[number]))
        return values.astype(np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return IndexedItems, (self.prefix, self.dtype)


def write_index(prefix: str, sizes: Sequence[int], dtype: type[np.integer]) -> None:
    """Write ``{prefix}.idx`` atomically.

    Args:
        prefix: path without ``.bin`` and ``.idx``.
        sizes: number of values of each item in ``{prefix}.bin``.
        dtype: type of the items, a key of :data:`TYPE_CODES`.
    """
    lengths = np.array(sizes, np.int64)
    begins = (lengths.cumsum() - lengths) * np.dtype(dtype).itemsize
    with atomic_binary(f"{prefix}.idx") as file:
        file.write(HEADER.pack(MAGIC, VERSION, TYPE_CODES[dtype], len(lengths)))
        file.write(lengths.astype("<i4").tobytes())
        file.write(begins.astype("<i8").tobytes())
