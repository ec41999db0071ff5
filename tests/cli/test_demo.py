"""``bridle demo`` refuses folders and arguments."""

from __future__ import annotations

import os

import pytest

from bridle_fairseq.cli import main as bridle


@pytest.mark.parametrize("kind", ["audio", "images", "video"])
def test_folder_of_something_else_is_refused(tmp_path, kind, capsys) -> None:
    media, folder = tmp_path / "media", tmp_path / "folder"
    media.mkdir()
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    assert bridle.main(["demo", f"--{kind}", str(media), "--dir", str(folder)]) == 2
    assert "no demo" in capsys.readouterr().err
    assert os.listdir(folder) == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--labels", "x.csv"], "--labels without --audio, --images, --video"),
        (["--audio", "no/such/folder"], "no such folder"),
        (["--audio", "x", "--images", "y"], "expected one folder"),
        (["--modality", "image", "--audio", "x"], "expected one folder: --audio with --modality audio"),
        (["--updates", "3"], "--updates is 3"),
    ],
)
def test_wrong_arguments_are_reported_in_one_sentence(tmp_path, capsys, arguments, sentence) -> None:
    assert bridle.main(["demo", "--dir", str(tmp_path / "out"), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
