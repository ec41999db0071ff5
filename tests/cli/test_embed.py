"""``bridle embed``: vectors of files in three formats, and what happens to files that cannot be used."""

from __future__ import annotations

import csv
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bridle_fairseq.cli import main as bridle
from bridle_fairseq.data.artifacts.features import CachedFeatures
from bridle_fairseq.data.manifests.manifest import Manifest


@pytest.fixture
def folder(tmp_path) -> Path:
    """Clips in two folders, a text, a damaged clip, and one of another ending."""
    for number, name in enumerate(("b.wav", "a.wav", "sub/c, d.flac")):
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.3 * np.sin(np.arange(6000 + 9000 * number) * (0.05 + 0.03 * number))
        soundfile.write(path, wave, 16000)
    (tmp_path / "sounds/two\nlines.wav").write_bytes(b"RIFF no sound")
    (tmp_path / "sounds/damaged.wav").write_bytes(b"RIFF no sound")
    (tmp_path / "sounds/x.spx").write_bytes(b"OggS")
    (tmp_path / "sounds/notes.txt").write_text("x")
    return tmp_path / "sounds"


def embed(*arguments) -> int:
    return bridle.main(["embed", "--workers", "1", "--device", "cpu", *map(str, arguments)])


def test_a_folder_is_searched_and_bad_files_are_reported(checkpoint, folder, tmp_path, capsys) -> None:
    assert embed(folder, "--model", checkpoint, "--out", tmp_path / "x.npy", "--max-skipped", "0.5") == 0
    printed = capsys.readouterr()
    names = [f"{folder}/a.wav", f"{folder}/b.wav", f"{folder}/sub/c, d.flac"]
    assert (tmp_path / "x.files.txt").read_text().splitlines() == names
    vectors = np.load(tmp_path / "x.npy")
    assert vectors.shape == (3, 32) and vectors.dtype == np.float32 and np.isfinite(vectors).all()
    assert "3 files x 32 float32, 3 files skipped" in printed.out
    skipped = [line for line in printed.err.splitlines() if line.startswith("skipped: ")]
    assert [line.split(": ")[1] for line in skipped] == [
        f"{folder}/x.spx",
        f"{folder}/damaged.wav",
        f"{folder}/two\\nlines.wav",
    ]
    assert "no sound files by their endings: 1 .txt" in printed.err


def test_the_folder_of_the_output_is_checked_first(checkpoint, folder, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("bridle_fairseq.inference.embed.embed_files", None)  # not called
    assert embed(folder, "--model", checkpoint, "--out", folder / "a.wav" / "x.npy") == 2
    assert "a.wav: " in capsys.readouterr().err


def test_a_bad_file_of_a_relative_folder_is_named(checkpoint, folder, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert embed("sounds", "--model", checkpoint, "--out", "x.npy", "--max-skipped", "0.5") == 0
    assert "skipped: sounds/damaged.wav: " in capsys.readouterr().err
    assert (tmp_path / "x.files.txt").read_text().startswith("sounds/a.wav\nsounds/b.wav\n")


def test_formats_hold_the_same_vectors_as_features(checkpoint, folder, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    files = [folder / "sub/c, d.flac", folder / "a.wav"]
    sizes = [soundfile.info(file).frames for file in files]
    Manifest(str(folder), ["sub/c, d.flac", "a.wav"], sizes).write(tmp_path / "m.tsv")
    options = ["--layers", "1", "--pooling", "mean", "frequency", "--chunk-seconds", "0.4"]
    features = ["features", checkpoint, str(tmp_path / "m.tsv"), "--out", str(tmp_path), "--device", "cpu"]
    assert bridle.main([*features, *options]) == 0
    stored = CachedFeatures(tmp_path / "m.features")
    expected = np.concatenate([stored["mean.layer1"], stored["frequency.layer1"]], axis=1)
    for given in (files, [tmp_path / "m.tsv"]):
        for ending in ("npy", "csv", "parquet"):
            assert embed(*given, "--model", checkpoint, "--out", tmp_path / f"x.{ending}", *options) == 0
        np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)
        with open(tmp_path / "x.csv", newline="") as file:
            header, *rows = csv.reader(file)
        assert header[:2] == ["file", "mean.layer1.0"] and header[-1] == f"frequency.layer1.{32 * 8 - 1}"
        assert [row[0] for row in rows] == list(map(str, files))
        np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), expected)
        table = parquet.read_table(tmp_path / "x.parquet")
        assert table["file"].to_pylist() == list(map(str, files))
        np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), expected)


def test_other_files_are_written_when_too_many_are_bad(checkpoint, folder, tmp_path, capsys) -> None:
    bad = [tmp_path / f"none {number}.wav" for number in range(3)]
    assert embed(folder / "a.wav", *bad, "--model", checkpoint, "--out", tmp_path / "x.npy") == 1
    printed = capsys.readouterr().err
    assert printed.count("skipped: ") == 3 and "3 of 4 files are unusable, more than the 1 allowed" in printed
    assert len(np.load(tmp_path / "x.npy")) == 1
    more = ["--max-skipped", "0.9"]
    assert embed(folder / "a.wav", *bad, "--model", checkpoint, "--out", tmp_path / "x.npy", *more) == 0


def test_rows_of_a_manifest_without_a_file_are_reported(checkpoint, folder, tmp_path, capsys) -> None:
    Manifest(str(folder), ["a.wav", "none.wav"], [15000, 9000]).write(tmp_path / "m.tsv")
    assert embed(tmp_path / "m.tsv", "--model", checkpoint, "--out", tmp_path / "x.npy", "--max-skipped", "0.5") == 0
    assert f"skipped: {folder}/none.wav: " in capsys.readouterr().err
    assert (tmp_path / "x.files.txt").read_text() == f"{folder}/a.wav\n"


BAD = {
    "ending": (["{a}", "--out", "x.txt"], "--out is x.txt; expected a name that ends with .npy, .csv, .parquet"),
    "all bad": (["{bad}", "--out", "x.npy"], "not one of 1 files can be used; "),
    "a manifest and a file": (["{tsv}", "{a}", "--out", "x.npy"], "a manifest beside other files; expected it alone"),
    "an empty folder": (["{empty}", "--out", "x.npy"], "no file found with extension .wav"),
    "a layer": (["{a}", "--out", "x.npy", "--layers", "9"], "--layers has '9'; expected numbers from 1 to 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_sentence(checkpoint, folder, tmp_path, monkeypatch, capsys, name) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    Manifest(str(folder), ["a.wav"], [15000]).write(tmp_path / "m.tsv")
    places = {"a": folder / "a.wav", "bad": folder / "damaged.wav", "tsv": tmp_path / "m.tsv", "empty": "empty"}
    arguments, sentence = BAD[name]
    assert embed(*(text.format(**places) for text in arguments), "--model", checkpoint) == 2
    printed = capsys.readouterr().err
    assert sentence in printed and printed.count("\n") == 1 and not list(tmp_path.glob("x.*"))


def test_missing_pyarrow_is_said_before_the_model_runs(folder, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert embed(folder, "--model", "none", "--out", tmp_path / "x.parquet") == 2
    printed = capsys.readouterr().err
    assert "x.parquet needs pyarrow" in printed and "bridle_fairseq[parquet]" in printed


def test_an_archive_has_the_vectors_of_its_files(checkpoint, folder, tmp_path) -> None:
    files = [folder / "a.wav", folder / "b.wav"]
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
        tar.add(folder / "notes.txt", "a.txt")
    assert embed(tmp_path / "x.tar", "--model", checkpoint, "--out", tmp_path / "x.npy") == 0
    assert embed(*files, "--model", checkpoint, "--out", tmp_path / "y.npy") == 0
    assert (tmp_path / "x.files.txt").read_text() == f"{tmp_path}/x.tar/a.wav\n{tmp_path}/x.tar/b.wav\n"
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy"))
