"""The memory that training takes, among what a run logs."""

import sys

from fairseq.logging import metrics


def log_memory() -> None:
    """Log ``memory_gb``: the most that this process held at once (its own, not of a GPU nor of data loaders), in GB.

    fairseq logs what is free on a GPU (``gb_free``). Nothing is logged where the system does not tell.
    """
    try:
        import resource
    except ImportError:  # not a Unix
        return
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    metrics.log_scalar("memory_gb", peak, weight=0, priority=1500, round=2)
