"""One sentence and exit code 2 for a user's mistake, also from inside fairseq's trainer."""

import contextlib
import sys

from bridle_fairseq.utils.errors import InputError


@contextlib.contextmanager
def exit_on_input_error():
    """Print an :class:`InputError` as one line and exit with 2.

    SystemExit passes through hydra and fairseq's trainer, which would turn any other exception into a stack trace.
    """
    try:
        yield
    except InputError as error:
        print(f"bridle_fairseq: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
