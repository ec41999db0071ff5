"""Folders of data files that belong to the package: configurations, weights and pictures."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def packaged(folder: str) -> Path:
    """A folder that setup.py copies into a wheel, such as ``examples``: that of a wheel, else of the checkout."""
    installed = PACKAGE / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder
