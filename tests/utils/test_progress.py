"""Progress bars with tqdm, and silence without it."""

import contextlib
import os
import sys

import pytest

from bridle_fairseq.utils.progress import progress_bar, with_progress


def test_without_tqdm_nothing_is_shown(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress_bar(3, "x") as bar:
        bar.update(2)
    assert list(with_progress([1, 2], "x", "batches")) == [1, 2] and capsys.readouterr() == ("", "")


def test_with_tqdm_the_items_are_counted(capsys) -> None:
    with progress_bar(3, "valid") as bar:
        bar.update(3)
    assert bar.n == 3 and "valid" in capsys.readouterr().err
    assert list(with_progress([1, 2], "x", "batches")) == [1, 2]


@pytest.mark.parametrize("size", [(0, 0), (40, 100)])
def test_bar_on_a_terminal_with_and_without_a_size(size, monkeypatch) -> None:
    """A terminal of a container may state no size."""
    import fcntl
    import pty
    import struct
    import termios

    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    with open(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with progress_bar(3, "valid") as bar:
            bar.update(3)
    drawn = b""
    with contextlib.suppress(OSError):  # its end
        while True:
            drawn += os.read(main, 4096)
    os.close(main)
    assert b"valid: 100%" in drawn and b"3/3" in drawn
