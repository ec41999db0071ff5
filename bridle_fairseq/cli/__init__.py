"""The ``bridle`` command line.

Ctrl-C ends the command in one line from here on, while modules are imported; then
:func:`bridle_fairseq.utils.process.run_command` answers it.
"""

import os
import signal
import sys


def _end(number: int, frame: object) -> None:
    """Nothing has been written yet. An exception could be taken for a failed import."""
    os.write(2, b"bridle: interrupted\n")
    os._exit(128 + number)


_is_command = os.path.basename(sys.argv[0]) == "bridle" or sys.argv[0] == "-m"  # also as python -m bridle_fairseq
_is_command = _is_command and "multiprocessing" not in sys.modules  # no child of one
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
