"""Progress bars with tqdm, and silence without it."""

import sys

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
