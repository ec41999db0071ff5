"""Imports of optional dependencies: a missing one is reported in one sentence that says how to install it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bridle_fairseq.utils.errors import InputError


@contextmanager
def optional_import(need: str, packages: str) -> Iterator[None]:
    """Report an import that fails in this block.

    Args:
        need: what needs which package, such as "video needs PyAV".
        packages: what ``pip install`` should install, such as ``'bridle_fairseq[video]'``.

    Raises:
        InputError: a package is missing, or its binaries were built for another version of torch.
    """
    try:
        yield
    except (ImportError, RuntimeError, OSError) as error:  # the last two: binaries that do not fit torch
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{need} ({reason}); install it: pip install {packages}") from None
