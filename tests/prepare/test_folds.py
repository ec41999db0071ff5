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
PINNED = [0, 3, 14, 15, 17, 22, 28, 60, 67, 77, 80, 85]  # validation of fold 2, seed 1


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


def test_single_label_draw_is_the_one_of_earlier_versions() -> None:
    (fold,) = make_folds(FOLDS, LABELS, CLASSES, 0.2, seed=1, wanted=["2"])
    assert fold.valid.tolist() == PINNED
    (one_hot,) = make_folds(FOLDS, np.eye(3)[LABELS], CLASSES, 0.2, seed=1, wanted=["2"])
    assert one_hot.valid.tolist() == PINNED


@pytest.mark.parametrize("seed", range(20))
def test_small_multi_label_table_keeps_every_class_in_training(seed: int) -> None:
    table = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]])  # clips AC, A, BC, B
    (fold,) = make_folds(["1"] * 4 + ["2"] * 4, np.tile(table, (2, 1)), CLASSES, 0.25, seed, wanted=["2"])
    assert table[fold.train].any(0).all() and table[fold.valid].any(0).all()


def random_table(seed: int) -> tuple[list[str], np.ndarray, float]:
    """Folds, labels (any number of 8 classes per row, rare and frequent ones), and a share for validation."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(12, 80))
    labels = rng.random((rows, 8)) < rng.uniform(0.02, 0.6, 8)
    labels[:2, 0] = labels[-2:, 0] = labels[:2, 1] = labels[-2:, 1] = [True, False]  # two classes in each fold
    return ["1"] * (rows // 2) + ["2"] * (rows - rows // 2), labels.astype(np.float32), float(rng.uniform(0.05, 0.5))


def test_multi_label_folds_of_many_tables() -> None:
    classes, deviations = Classes([*"abcdefgh"], [*"abcdefgh"]), []
    for seed in range(300):
        folds, labels, share = random_table(seed)
        for fold in make_folds(folds, labels, classes, share, seed):
            assert sorted(np.concatenate(fold[1:]).tolist()) == list(range(len(folds)))
            assert {folds[row] for row in fold.test} == {fold.name}
            trained, valid = labels[fold.train].sum(0), labels[fold.valid].sum(0)
            counts = trained + valid
            assert (trained > 0).sum() == (counts > 0).sum()
            for number in np.flatnonzero((counts > 1) & (valid == 0)):  # each clip is the last of another class
                clips = labels[fold.train][labels[fold.train][:, number] > 0] > 0
                assert all((trained[clip] == 1).any() for clip in clips)
            wanted = np.minimum(np.maximum(1, np.round(counts * share)), counts - 1)
            deviations += (valid - wanted)[counts > 0].tolist()
    assert np.abs(deviations).max() <= 3
    assert np.mean(np.abs(deviations) > 1) < 0.005 and np.mean(np.abs(deviations) > 0) < 0.2


def test_multi_label_draw_depends_on_seed_only() -> None:
    folds, labels, share = random_table(0)
    classes = Classes([*"abcdefgh"], [*"abcdefgh"])
    drawn = [make_folds(folds, labels, classes, share, seed)[0].valid.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_clips_of_no_class_are_drawn_by_share() -> None:
    labels = np.concatenate([np.tile(np.eye(3), (10, 1)), np.zeros((60, 3))])
    (fold,) = make_folds(["1"] * 10 + ["2"] * 80, labels, CLASSES, 0.2, seed=1, wanted=["1"])
    assert (labels[fold.valid].sum(1) == 0).sum() == 12


@pytest.mark.parametrize(
    "folds,labels,wanted,sentence",
    [
        (FOLDS, LABELS, ["4"], "fold '4' has no clips; expected one of 1, 2, 10"),
        (["1"] * 90, LABELS, None, "all 90 clips are in fold '1'; expected at least 2 folds"),
        (FOLDS, np.where(np.array(FOLDS) == "2", 1, LABELS), None, "all 30 clips of the fold are 'bee'"),
        (FOLDS, np.where(np.array(FOLDS) == "2", LABELS, 0), ["2"], "all 60 clips of the other folds are 'ant'"),
        (
            ["1", "1", "2", "2"],
            np.array([0, 1, 0, 1]),
            None,
            "2 clips of the other folds are all needed for training",
        ),
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
