"""What an earlier run of ``bridle manifest`` left in a folder."""

import numpy as np
import pytest
import soundfile

from bridle_fairseq.cli.main import main
from bridle_fairseq.data.manifests.manifest import Manifest


@pytest.fixture
def run(tmp_path):
    for label in "ab":
        (tmp_path / "in" / label).mkdir(parents=True)
        for number in range(10):
            soundfile.write(tmp_path / "in" / label / f"{number}.wav", np.zeros(100 + number), 8000)
    command = ["manifest", str(tmp_path / "in"), "--dest", str(tmp_path / "out"), "--valid-percent", "0.2"]

    def call(*arguments):
        assert main([*command, *arguments]) == 0
        return {path.name for path in (tmp_path / "out").iterdir()}

    return call


def test_split_with_clips_of_the_new_ones_is_renamed(run, tmp_path, capsys):
    first = run("--class-folders", "--test-percent", "0.2")
    assert {"test.tsv", "test.lbl"} <= first
    assert run("--class-folders") == first - {"test.tsv", "test.lbl"} | {"test.tsv.old", "test.lbl.old"}
    said = capsys.readouterr().err
    assert "test.tsv is of an earlier run, and 4 of its clips are in the new splits: renamed to test.tsv.old" in said
    assert len(Manifest.read(tmp_path / "out" / "test.tsv.old")) == 4


def test_split_of_other_clips_stays(run, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(100), 8000)
    Manifest(tmp_path, ["x.wav"], [100]).write(tmp_path / "out" / "test.tsv")
    assert {"test.tsv", "train.tsv"} <= run()


def test_labels_of_other_rows_are_renamed(run, capsys):
    first = run("--class-folders", "--seed", "1")
    assert run() == first - {"train.lbl", "valid.lbl"} | {"train.lbl.old", "valid.lbl.old"}
    assert "train.lbl has the labels of other rows than train.tsv has now" in capsys.readouterr().err


def test_labels_of_the_same_rows_stay(run, tmp_path, capsys):
    run()
    for split in ("train", "valid"):
        (tmp_path / "out" / f"{split}.lbl").write_text("by hand\n")
    assert {"train.lbl", "valid.lbl"} <= run()
    assert "renamed" not in capsys.readouterr().err
