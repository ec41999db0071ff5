"""Progress bars where tqdm is installed; without it, silence."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")


class _Silent:
    """A bar that shows nothing."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: int = 1) -> None:
        """Ignore the finished items."""


def bar_size() -> dict[str, int]:
    """``ncols`` and ``nrows`` of tqdm on a terminal that states no size, as in containers; else it draws nothing."""
    try:
        columns, lines = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return {}
    return {} if columns and lines else {"ncols": columns or 80, "nrows": lines or 24}


def progress_bar(total: int, name: str, unit: str = "clips", in_files: bool = True) -> Any:
    """A bar to use as a context, with ``update(count)``; it shows nothing if there is nothing to do.

    Args:
        total: number of items.
        name, unit: shown beside the bar.
        in_files: show it even if stderr is no terminal.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return _Silent()
    interval = 0.2 if sys.stderr.isatty() else 30.0  # a log file needs no line five times a second
    disable = total == 0 or not (in_files or sys.stderr.isatty())
    return tqdm(total=total, desc=name, unit=f" {unit}", mininterval=interval, disable=disable, **bar_size())


def with_progress(items: Iterable[Item], name: str, unit: str) -> Iterable[Item]:
    """The same items, with a bar on a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return tqdm(items, desc=name, unit=f" {unit}", disable=not sys.stderr.isatty(), **bar_size())
