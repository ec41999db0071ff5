"""Memory-mapped ``.npy`` files whose type and shape are known beforehand."""

from __future__ import annotations

import math
import os

import numpy as np

from bridle_fairseq.utils.errors import InputError

READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_array(path: str, what: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a ``.npy`` file, memory-mapped and read-only. Nothing is unpickled.

    Args:
        path: path of the file.
        what: name of the content in messages.
        dtype, shape: those that the file must have.

    Raises:
        InputError: the file is missing, damaged, of another type or shape, or shorter or longer than that.
    """
    try:
        with open(path, "rb") as file:
            found = READERS[np.lib.format.read_magic(file)](file)
            begin, size = file.tell(), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path}: cannot read {what}: {error.strerror or error}") from None
    except Exception as error:  # a damaged header can raise any exception: it is Python text that numpy evaluates
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: cannot read {what}: damaged, no .npy file ({reason})") from None
    if found != (shape, False, np.dtype(dtype)):
        axes, fortran, kind = found
        raise InputError(
            f"{path}: {kind} {'x'.join(map(str, axes))[:60]}{' in columns' * fortran}; expected {dtype} "
            f"{'x'.join(map(str, shape))}, as its json says"
        )
    expected = begin + math.prod(shape) * np.dtype(dtype).itemsize
    if size != expected:
        raise InputError(f"{path}: {size} bytes; expected {expected}")
    return np.memmap(path, dtype, "r", begin, shape) if math.prod(shape) else np.empty(shape, dtype)
