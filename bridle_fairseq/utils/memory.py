"""Memory allocation of the C library."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory for its next allocations; False if the C library is not glibc.

    By default glibc returns large blocks to the kernel, which clears every page again at its next use. A training step
    allocates and frees the same sizes over and over. Nothing is changed if ``MALLOC_TRIM_THRESHOLD_`` or
    ``MALLOC_MMAP_THRESHOLD_`` is set in the environment.
    """
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(option, KEPT_BYTES) for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD)])


def available_memory() -> int:
    """Bytes that this machine can give to a process without swapping; where only its memory is known, all of it."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            (line,) = (line for line in file if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
