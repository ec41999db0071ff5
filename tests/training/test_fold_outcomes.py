"""Scores of the test clips of folds, and the difference of two cross-validations."""

from __future__ import annotations

import numpy as np
import pytest

from bridle_fairseq.evaluation.scores import score_of
from bridle_fairseq.prepare.folds import Fold
from bridle_fairseq.training.fold_outcomes import FoldScore, fold_difference, placed, write_scores
from bridle_fairseq.utils.errors import InputError

FOLDS = [Fold(name, np.arange(0), np.arange(0), rows) for name, rows in (("1", np.arange(8)), ("2", np.arange(8, 20)))]


def test_scores_in_the_place_of_all_clips_and_classes() -> None:
    found = placed(np.array([[0.25, 0.75]]), np.array([1]), np.array([0, 2]), 2, 3)
    assert np.isnan(found[0]).all() and found[1].tolist() == [0.25, -np.inf, 0.75] and found.dtype == np.float32


@pytest.fixture
def both(tmp_path):
    """Two cross-validations of two folds with two rows each; (folder, scores by fold) of both, and targets."""
    rng = np.random.default_rng(0)
    targets = np.eye(3)[rng.integers(0, 3, 20)]
    sides = []
    for side, noise in (("a", (0.1, 3.0)), ("b", (2.0, 5.0))):
        scores = {}
        for fold in FOLDS:
            folder = tmp_path / side / f"fold{fold.name}"
            folder.mkdir(parents=True)
            truth = targets[fold.test]
            write_scores(folder, [truth + deviation * rng.normal(size=truth.shape) for deviation in noise])
            scores[fold.name] = [FoldScore("first", 0.8, 0.0), FoldScore("second", 0.8 + 0.1 * (side == "b"), 0.0)]
        sides.append((tmp_path / side, scores))
    return *sides, targets


@pytest.mark.parametrize("multi", [False, True])
def test_difference_is_that_of_the_rows_that_validate_best(both, multi) -> None:
    here, there, targets = both
    means = []
    for (folder, _), row in ((here, 0), (there, 1)):  # the first one at ties
        stored = [np.load(folder / f"fold{fold.name}" / "result.scores.npy")[row] for fold in FOLDS]
        means.append(np.mean([score_of(s, targets[f.test], multi) for s, f in zip(stored, FOLDS, strict=True)]))
    found = fold_difference(here, there, FOLDS, targets, multi, 1)
    assert found.value == pytest.approx(means[0] - means[1]) and found.low <= found.value <= found.high
    assert found.high - found.low > 0.05


def test_clips_that_one_side_could_not_read_are_left_out_of_both(both) -> None:
    here, there, targets = both
    path = there[0] / "fold1" / "result.scores.npy"
    stored = np.load(path)
    stored[:, :7] = np.nan
    np.save(path, stored)
    found = fold_difference(here, there, FOLDS[:1], targets, False, 1)
    right = [np.load(side / "fold1/result.scores.npy")[row][7].argmax() for side, row in ((here[0], 0), (there[0], 1))]
    assert found.value == float(right[0] == targets[7].argmax()) - float(right[1] == targets[7].argmax())


def test_damaged_scores_are_reported(both) -> None:
    here, there, targets = both
    (there[0] / "fold2" / "result.scores.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="fold2/result.scores.npy: cannot read these scores: damaged"):
        fold_difference(here, there, FOLDS, targets, False, 1)
