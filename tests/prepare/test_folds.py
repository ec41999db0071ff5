"""Cross-validation folds: splits, stratification, and invalid folds."""

from __future__ import annotations

import numpy as np
import pytest

from bridle_fairseq.data.manifests.labels import Classes
from bridle_fairseq.prepare.folds import make_folds, match_all
from bridle_fairseq.prepare.scan import FoundFile, Scan
from bridle_fairseq.prepare.tables import Entry
from bridle_fairseq.utils.errors import InputError

CLASSES = Classes(["ant", "bee", "cat"], ["ant", "bee", "cat"])
FOLDS = np.repeat(["1", "2", "10"], 30).tolist()
LABELS = np.tile([0, 0, 0, 1, 1, 2], 15)


def test_every_clip_is_tested_once() -> None:
    folds = make_folds(FOLDS, LABELS, CLASSES, 0.2, seed=1)
    assert [fold.name for fold in folds] == ["1", "2", "10"]
    for fold in folds:
        rows = np.concatenate(fold[1:])
        assert sorted(rows.tolist()) == list(range(90))
        assert {FOLDS[row] for row in fold.test} == {fold.name}
        assert fold.name not in {FOLDS[row] for row in np.concatenate([fold.train, fold.valid])}
        assert np.bincount(LABELS[fold.valid]).tolist() == [6, 4, 2]  # a fifth of each class


def test_draw_depends_on_seed_and_fold_only() -> None:
    folds = make_folds(FOLDS, LABELS, CLASSES, 0.2, seed=1)
    (again,) = make_folds(FOLDS, LABELS, CLASSES, 0.2, seed=1, wanted=["2"])
    assert again.valid.tolist() == folds[1].valid.tolist()
    (other,) = make_folds(FOLDS, LABELS, CLASSES, 0.2, seed=2, wanted=["2"])
    assert other.valid.tolist() != folds[1].valid.tolist()


def test_single_clip_of_a_class_trains() -> None:
    labels = LABELS.copy()
    labels[:] = labels % 2
    labels[89] = 2
    (fold,) = make_folds(FOLDS, labels, CLASSES, 0.2, seed=1, wanted=["1"])
    assert 89 in fold.train


def test_multi_label_clips_are_drawn_for_the_rarest_class() -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([rng.random(90) < share for share in (0.6, 0.3, 0.1)], axis=1).astype(np.float32)
    for fold in make_folds(FOLDS, labels, CLASSES, 0.2, seed=1):
        assert sorted(np.concatenate(fold[1:]).tolist()) == list(range(90))
        assert {FOLDS[row] for row in fold.test} == {fold.name}
        others = np.concatenate([fold.train, fold.valid])
        wanted = 0.2 * labels[others].sum(0)
        assert np.abs(labels[fold.valid].sum(0) - wanted).max() <= 3 and labels[fold.train].any(0).all()
        assert abs(labels[fold.valid][:, 2].sum() - wanted[2]) <= 0.5  # the rarest class is exact
        assert abs(len(fold.valid) - 12) <= 3


@pytest.mark.parametrize(
    "folds,labels,wanted,sentence",
    [
        (FOLDS, LABELS, ["4"], "fold '4' has no clips; expected one of 1, 2, 10"),
        (["1"] * 90, LABELS, None, "all 90 clips are in fold '1'; expected at least 2 folds"),
        (FOLDS, np.where(np.array(FOLDS) == "2", 1, LABELS), None, "all 30 clips of the fold are 'bee'"),
        (FOLDS, np.where(np.array(FOLDS) == "2", LABELS, 0), ["2"], "all 60 clips of the other folds are 'ant'"),
        (FOLDS, np.zeros((90, 3)), None, "all 30 clips of the fold are of no class"),
    ],
)
def test_invalid_folds(folds, labels, wanted, sentence) -> None:
    with pytest.raises(InputError, match="expected") as error:
        make_folds(folds, labels, CLASSES, 0.2, seed=1, wanted=wanted)
    assert sentence in str(error.value)


def test_every_entry_needs_a_file() -> None:
    scan = Scan("/sounds", [FoundFile("a.wav", "a.wav"), FoundFile("more.wav", "more.wav")], [10, 10], [])
    entries = {"a.wav": Entry(["ant"], fold="1"), "b.wav": Entry(["ant"], fold="1")}
    with pytest.raises(InputError, match="1 of 2 files are not there or cannot be read, such as 'b.wav'"):
        match_all(scan, entries, "folds.csv")
    del entries["b.wav"]
    assert match_all(scan, entries, "folds.csv") == [entries["a.wav"], None]
    several = {"a.wav": Entry(["ant", "bee"], fold="1")}
    assert match_all(scan, several, "folds.csv", multi_label=True) == [several["a.wav"], None]
    with pytest.raises(InputError, match="'a.wav' has 2 classes; expected exactly 1, unless --label-separator"):
        match_all(scan, several, "folds.csv")
    with pytest.raises(InputError, match="empty fold"):
        match_all(scan, {"a.wav": Entry(["ant"])}, "folds.csv")
