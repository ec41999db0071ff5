"""The one exception for what a user can mend: bad files, bad rows, bad settings."""

from __future__ import annotations


class InputError(Exception):
    """A user's mistake, told in one sentence: the file, the row, the value found and what was expected.

    Entry points (the ``bridle`` command, the fairseq tasks) print the sentence and exit with code 2; no traceback.
    """


class DecodeError(Exception):
    """A media file that cannot be used, with the reason in a few words: it is skipped, counted and listed."""
