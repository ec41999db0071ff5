"""Lines that scripts/gpu_check.sh collects in its table."""

from __future__ import annotations


def result(what: str, measured: str, goal: str = "") -> None:
    """Print what was measured, the value with its unit, and the goal."""
    print(f"= {what} | {measured} | {goal}", flush=True)
