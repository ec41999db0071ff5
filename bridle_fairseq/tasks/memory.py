"""Logs the memory that training takes."""

import sys

from fairseq.logging import metrics


def log_memory() -> None:
    """Log ``memory_gb``, the peak memory of this process in GB, without GPU memory and data loader workers.

    fairseq logs the free memory of a GPU (``gb_free``). Nothing is logged if the system does not report it.
    """
    try:
        import resource
    except ImportError:  # not a Unix
        return
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, else KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    metrics.log_scalar("memory_gb", peak, weight=0, priority=1500, round=2)
