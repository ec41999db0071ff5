"""Errors that a user can fix: bad files, bad rows, bad settings."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class InputError(Exception):
    """A user's error in one sentence: the file, the row, the value and what was expected.

    Entry points (the ``bridle`` command, the fairseq tasks) print the sentence and exit with code 2, without traceback.
    """


class DecodeError(Exception):
    """A media file that cannot be used, with a short reason. Such files are skipped, counted and listed."""


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Print an :class:`InputError` as one line and exit with 2.

    SystemExit passes through hydra and fairseq's trainer, which print a traceback of any other exception.
    """
    try:
        yield
    except InputError as error:
        print(f"bridle_fairseq: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def run_script(function: Callable[[Any], None], args: Any) -> int:
    """Run a script's function and return the exit code: 2, with one line on stderr, for a user's mistake."""
    try:
        function(args)
    except InputError as error:
        print(f"{os.path.basename(sys.argv[0])}: error: {error}", file=sys.stderr)
        return 2
    return 0
