"""Splits, folds, and the written files."""

import numpy as np
import pytest

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.prepare.corpus import Corpus, folder_entries, labelled_corpus, scan_source
from bridle_fairseq.prepare.folds import make_folds
from bridle_fairseq.prepare.scan import FoundFile, Scan
from bridle_fairseq.prepare.splits import random_split, stratified_split
from bridle_fairseq.prepare.tables import Entry
from bridle_fairseq.utils.errors import InputError

SCAN = Scan("/r", [FoundFile(f"{row}.wav", f"{row}.wav") for row in range(6)], list(range(10, 16)), [])


def test_random_split():
    splits = random_split(1000, 0.05, seed=1)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 950, "valid": 50}
    assert sorted(np.concatenate(list(splits.values()))) == list(range(1000))
    assert all((np.diff(rows) > 0).all() for rows in splits.values()) and splits["valid"].max() > 500
    again, other = random_split(1000, 0.05, seed=1), random_split(1000, 0.05, seed=2)
    assert np.array_equal(splits["valid"], again["valid"]) and not np.array_equal(splits["valid"], other["valid"])


def test_random_split_limits():
    assert len(random_split(2, 0.001, 1)["valid"]) == 1 and len(random_split(2, 0.99, 1)["train"]) == 1
    assert list(random_split(3, 0, 1)) == ["train"] and len(random_split(1, 0, 1)["train"]) == 1
    for share in (1, -0.1, 5):
        with pytest.raises(InputError, match="share for validation"):
            random_split(10, share, 1)
    with pytest.raises(InputError, match="1 usable file"):
        random_split(1, 0.05, 1)


def test_written_files_are_line_aligned(tmp_path, capsys):
    entries = [
        Entry(["dog"], "train"),
        None,
        Entry(["cat", "dog"], "valid"),
        Entry([], "train"),
        None,
        Entry(["cat"], "test"),
    ]
    labelled_corpus(SCAN, entries).write(tmp_path)
    classes = Classes.read(tmp_path / "labels.csv")
    assert classes.names == ["cat", "dog"]
    expected = {"train": ([0, 3], [[1], []]), "valid": ([2], [[0, 1]]), "test": ([5], [[0]])}
    for split, (rows, labels) in expected.items():
        manifest = Manifest.read(tmp_path / f"{split}.tsv")
        assert list(manifest) == [(f"{row}.wav", 10 + row) for row in rows] and manifest.root == "/r"
        read = Labels.read(tmp_path / f"{split}.lbl", manifest, classes)
        assert [read[row] for row in range(len(read))] == labels
    said = capsys.readouterr()
    assert "train.tsv: 2 clips, 1 of 2 classes" in said.out and "valid.tsv: 1 clips, 2 classes" in said.out
    assert "warning: 1 of 2 classes are in no training part: 'cat'" in said.err
    assert "skipped 2 files without a label" in said.err


def test_without_labels(tmp_path):
    Corpus(SCAN, {"train": np.arange(6)}).write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.tsv"]


def test_every_fold_is_tested_once(tmp_path):
    entries = [Entry(["a"], fold=str(row % 3)) for row in range(6)]
    corpus = labelled_corpus(SCAN, entries, valid_percent=0.5)
    parts = ("train", "valid", "test")
    assert sorted(corpus.splits) == sorted(["train", "valid", *(f"fold{n}/{part}" for n in range(3) for part in parts)])
    train, valid, test = (corpus.splits[f"fold1/{part}"].tolist() for part in parts)
    assert test == [1, 4] and len(valid) == 1 and sorted(train + valid) == [0, 2, 3, 5]
    corpus.write(tmp_path)
    assert (tmp_path / "fold1" / "test.lbl").read_text() == "a\na\n" and (tmp_path / "fold1" / "labels.csv").exists()
    whole = labelled_corpus(SCAN, entries, valid_percent=0.5, fold_valid_percent=0.0)
    assert whole.splits["fold1/train"].tolist() == [0, 2, 3, 5] and "fold1/valid" not in whole.splits


def test_validation_of_a_fold_is_that_of_crossval():
    entries = [Entry(["a" if row % 2 else "b"], fold=name) for row, name in enumerate(("10", "10", "2", "2", "1", "1"))]
    corpus = labelled_corpus(SCAN, entries, valid_percent=0.5, seed=7, fold_valid_percent=0.3)
    classes, labels = Classes(["a", "b"], ["a", "b"]), np.array([1, 0] * 3)
    for fold in make_folds([entry.fold for entry in entries], labels, classes, 0.3, seed=7):
        for part in ("train", "valid", "test"):
            assert corpus.splits[f"fold{fold.name}/{part}"].tolist() == getattr(fold, part).tolist()


def test_fold_without_clips_for_validation_is_an_error():
    entries = [Entry([name], fold=str(row)) for row, name in enumerate("abcdef")]
    with pytest.raises(InputError, match="fold '0': the 5 clips of the other folds are all needed for training"):
        labelled_corpus(SCAN, entries)


def test_given_classes():
    classes = Classes(["/m/1", "/m/2"], ["Dog", "Cat"], "given.csv")
    corpus = labelled_corpus(SCAN, [Entry(["/m/2"]), Entry(["Dog"]), *[None] * 4], classes=classes)
    assert corpus.classes is classes and corpus.labels == [[1], [0], [], [], [], []]
    with pytest.raises(InputError, match="unknown class 'Cow'.*given.csv"):
        labelled_corpus(SCAN, [Entry(["Cow"]), *[None] * 5], classes=classes)


def test_split_in_some_rows_only():
    with pytest.raises(InputError, match=r"1\.wav: no split"):
        labelled_corpus(SCAN, [Entry(["a"], "train"), Entry(["a"]), *[None] * 4])


def test_unreadable_files_are_listed(tmp_path, write_sound, capsys):
    write_sound("in/a.wav")
    (tmp_path / "in" / "b.wav").write_bytes(b"junk")
    (tmp_path / "in" / "c\n.wav").write_bytes(b"junk")
    scan = scan_source(tmp_path / "in", tmp_path / "out", max_skipped=0.9)
    assert len(scan.files) == 1
    assert "b.wav'\tnot readable" in (tmp_path / "out" / "skipped.tsv").read_text()
    said = capsys.readouterr().err
    assert (
        "in/c\\n.wav: name with a tab" in said
        and "left out:" in said
        and "2 of 3 files cannot be read" in said
        and "skipped.tsv" in said
    )
    (tmp_path / "in" / "a.wav").write_bytes(b"")
    with pytest.raises(InputError, match="none of 3 files can be read"):
        scan_source(tmp_path / "in", tmp_path / "out")


def test_folder_entries(scan_of):
    entries = folder_entries(scan_of("cat/1.jpg", "dog/deep/2.jpg", "3.jpg"))
    assert [entry and list(entry.labels) for entry in entries] == [["cat"], ["dog"], None]
    entries = folder_entries(scan_of("train/cat/1.jpg", "val/cat/2.jpg", "test/dog/more/3.jpg"))
    assert [(*entry.labels, entry.split) for entry in entries] == [("cat", "train"), ("cat", "valid"), ("dog", "test")]
    # a class with the name of a split
    entries = folder_entries(scan_of("train/1.jpg", "bus/2.jpg"))
    assert [(*entry.labels, entry.split) for entry in entries] == [("train", ""), ("bus", "")]


def test_folder_entries_draw_validation_from_train(scan_of):
    names = [f"train/{label}/{number}.jpg" for label in "ab" for number in range(20)]
    entries = folder_entries(scan_of(*names, "test/a/1.jpg"), 0.25, seed=3)
    splits = [entry.split for entry in entries]
    assert splits.count("valid") == 10 and splits.count("train") == 30 and splits[-1] == "test"
    assert splits == [entry.split for entry in folder_entries(scan_of(*names, "test/a/1.jpg"), 0.25, seed=3)]
    assert splits != [entry.split for entry in folder_entries(scan_of(*names, "test/a/1.jpg"), 0.25, seed=4)]
    assert {entry.split for entry in folder_entries(scan_of(*names), 0.0)} == {"train"}


def test_split_of_three_parts():
    two, three = random_split(100, 0.1, 7), random_split(100, 0.1, 7, 0.2)
    assert {name: len(rows) for name, rows in three.items()} == {"train": 70, "valid": 10, "test": 20}
    assert np.array_equal(two["valid"], three["valid"])
    assert sorted(np.concatenate(list(three.values()))) == list(range(100))
    assert {name: len(rows) for name, rows in random_split(3, 0.9, 1, 0.05).items()} == dict.fromkeys(
        ("train", "valid", "test"), 1
    )
    with pytest.raises(InputError, match="2 usable files; expected at least 3"):
        random_split(2, 0.1, 1, 0.1)
    with pytest.raises(InputError, match="expected a sum under 1"):
        random_split(10, 0.5, 1, 0.5)


def test_split_of_two_parts_is_that_of_earlier_versions():
    rows = np.zeros(40, dtype=bool)
    rows[np.random.default_rng(42).permutation(40)[:2]] = True
    assert np.array_equal(random_split(40, 0.05, 42)["valid"], np.flatnonzero(rows))


def test_every_class_is_in_every_part():
    labels = [[number % 7] for number in range(80)] + [[7]] * 3 + [[8]] * 2 + [[9]] + [[]] * 4
    splits = stratified_split(labels, 0.1, 3, 0.2)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(90))
    counts = {
        name: np.bincount([labels[row][0] for row in rows if labels[row]], minlength=10).tolist()
        for name, rows in splits.items()
    }
    assert counts["valid"] == [1] * 9 + [0] and counts["test"] == [2] * 7 + [1, 0, 0]
    assert counts["train"] == [9, 9, 9, 8, 8, 8, 8, 1, 1, 1]
    again, other = stratified_split(labels, 0.1, 3, 0.2), stratified_split(labels, 0.1, 4, 0.2)
    assert np.array_equal(splits["test"], again["test"]) and not np.array_equal(splits["test"], other["test"])


def test_single_row_of_each_class():
    splits = stratified_split([[0], [1], [2]], 0.1, 1)
    assert len(splits["train"]) == 2 and len(splits["valid"]) == 1
