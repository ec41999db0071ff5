"""How the C library hands out memory on a CPU."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for what it allocates next; False where the C library is not glibc.

    glibc gives large blocks back to the kernel, which clears them page by page when they are next touched. A training
    step allocates and frees the same sizes over and over. ``MALLOC_TRIM_THRESHOLD_`` and ``MALLOC_MMAP_THRESHOLD_`` in
    the environment are left as they are.
    """
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(option, KEPT_BYTES) for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD)])
