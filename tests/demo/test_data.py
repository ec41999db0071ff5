"""Splits of the demo: stratified, or those of the label table; unusable labels."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import soundfile

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.demo.data import write_classes, write_manifests
from bridle_fairseq.utils.errors import InputError


def make_sounds(folder, rows) -> tuple[str, str]:
    """One file a row (file, label, ...), and the table of them."""
    for row in rows:
        soundfile.write(folder / row[0], np.zeros(800, np.float32), 16000)
    table = folder / "table.csv"
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "split"][: len(rows[0])])
        writer.writerows(rows)
    return str(folder), str(table)


def read(folder, split: str) -> tuple[list[str], list[str]]:
    manifest = Manifest.read(folder / f"{split}.tsv")
    classes = Classes.read(folder / "labels.csv")
    labels = Labels.read(folder / f"{split}.lbl", manifest, classes)
    return [name for name, _ in manifest], [classes.names[labels[row][0]] for row in range(len(manifest))]


def test_splits_are_stratified_and_use_every_file_once(tmp_path) -> None:
    audio, table = make_sounds(tmp_path, [(f"{n}.wav", "rare" if n % 5 == 0 else "common") for n in range(100)])
    assert set(write_manifests(audio, table, tmp_path / "m", seed=1)) == {"train", "valid", "test"}
    parts = {split: read(tmp_path / "m", split) for split in ("train", "valid", "test")}
    assert {split: labels.count("rare") for split, (_, labels) in parts.items()} == {"train": 13, "valid": 3, "test": 4}
    assert {split: labels.count("common") for split, (_, labels) in parts.items()} == {
        "train": 52,
        "valid": 12,
        "test": 16,
    }
    names = [name for files, _ in parts.values() for name in files]
    assert sorted(names) == sorted(f"{n}.wav" for n in range(100))


def test_splits_depend_on_the_seed_only(tmp_path) -> None:
    audio, table = make_sounds(tmp_path, [(f"{n}.wav", "ab"[n % 2]) for n in range(40)])
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        write_manifests(audio, table, tmp_path / name, seed)
    test = {name: read(tmp_path / name, "test")[0] for name in ("one", "again", "other")}
    assert test["one"] == test["again"] != test["other"]


def test_splits_of_the_table_are_kept(tmp_path) -> None:
    rows = [(f"{n}.wav", "ab"[n % 2], "test" if n < 6 else "train") for n in range(40)]
    audio, table = make_sounds(tmp_path, rows)
    write_manifests(audio, table, tmp_path / "m", seed=1)
    assert sorted(read(tmp_path / "m", "test")[0]) == [f"{n}.wav" for n in range(6)]
    assert len(read(tmp_path / "m", "valid")[0]) > 0


def test_no_test_split_without_labels(tmp_path) -> None:
    audio, _ = make_sounds(tmp_path, [(f"{n}.wav", "a") for n in range(20)])
    assert write_manifests(audio, None, tmp_path / "m", seed=1) == ["train", "valid"]
    assert len(Manifest.read(tmp_path / "m" / "valid.tsv")) == 2


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([(f"{n}.wav", "a") for n in range(20)], "expected at least two classes"),
        ([(f"{n}.wav", "ab"[n % 2]) for n in range(4)], "no file is left for"),
        ([(f"{n}.wav", "ab"[n % 2], "train") for n in range(20)], "expected train and test"),
    ],
)
def test_unusable_labels_are_reported(tmp_path, rows, sentence) -> None:
    audio, table = make_sounds(tmp_path, rows)
    with pytest.raises(InputError, match=sentence):
        write_manifests(audio, table, tmp_path / "m", seed=1)


def write_class(name, folder) -> list[str]:
    (folder / name).mkdir()
    (folder / name / "0.txt").write_text(name)
    if name == "b":
        raise OSError(28, "No space left on device")
    return [f"{name}/0.txt"]


def test_set_appears_when_all_classes_are_complete(tmp_path) -> None:
    with pytest.raises(OSError) as failed:
        write_classes(write_class, ["a", "b"], tmp_path / "set")
    assert failed.value.filename == str(tmp_path / "set") and list(tmp_path.iterdir()) == []
    labels = write_classes(write_class, ["a", "c"], tmp_path / "set")
    assert labels.read_bytes() == b"file,label\r\na/0.txt,a\r\nc/0.txt,c\r\n"
    assert (tmp_path / "set/c/0.txt").read_text() == "c" and [p.name for p in tmp_path.iterdir()] == ["set"]
