"""The folds of a cross-validation: what is reported as validation and as test, and what the tested probe has seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bridle_fairseq.data.artifacts.features import FeatureArray
from bridle_fairseq.prepare.folds import Fold
from bridle_fairseq.training import fold_runs
from bridle_fairseq.training.fold_outcomes import SCORES, FoldScore
from bridle_fairseq.training.fold_runs import FoldOptions, run_folds
from bridle_fairseq.utils.errors import InputError

LABELS = np.arange(60) % 2
SIGN = 2.0 * LABELS[:, None] - 1  # a feature that tells the classes apart
TRAIN, VALID, TEST = np.split(np.arange(60), [20, 40])


@pytest.fixture
def scores_of(tmp_path, monkeypatch):
    """``scores_of(features)`` -> the fold's scores by probe, and the line that is printed about it."""

    def run(features: np.ndarray) -> tuple[dict[str, FoldScore], str]:
        array = FeatureArray("encoder", "mean", 1, features.shape[1])
        monkeypatch.setattr(fold_runs, "_features", lambda options, fold: {array: features})
        (tmp_path / "fold1").mkdir()
        lines: list[str] = []
        options = FoldOptions(out=tmp_path, mode="logmel")
        scores = run_folds(options, [Fold("1", TRAIN, VALID, TEST)], LABELS, 2, lines.append)
        return {score.name.split(", ")[-1]: score for score in scores["1"]}, lines[-1]

    return run


def test_test_score_is_of_the_test_clips(scores_of, tmp_path):
    features = SIGN.copy()
    features[TEST] *= -1
    scores, line = scores_of(features)
    assert {name: (score.valid, score.test) for name, score in scores.items()} == {"linear": (1, 0), "knn": (1, 0)}
    assert line == "fold 1: 0.000 (encoder, mean, linear)"
    rows = json.loads((tmp_path / "fold1/result.json").read_text())["rows"]
    assert [(row["valid"], row["test"]) for row in rows] == [(1, 0), (1, 0)]


def test_scores_of_the_test_clips_are_written_before_the_result(scores_of, tmp_path, monkeypatch):
    features = np.concatenate([SIGN, SIGN], 1)
    features[TEST[:3]] *= -1
    features[TEST[3]] = np.nan  # cannot be read
    scores, _ = scores_of(features)
    stored = np.load(tmp_path / "fold1" / SCORES)
    assert stored.shape == (2, 20, 2) and np.isnan(stored).any(2).tolist() == [[row == 3 for row in range(20)]] * 2
    right = np.delete(stored[0].argmax(1) == LABELS[TEST], 3)
    assert not right[:3].any() and right[3:].all() and right.mean() == pytest.approx(scores["linear"].test)

    def killed(*arguments):
        raise KeyboardInterrupt

    (tmp_path / "fold1/result.json").unlink()
    monkeypatch.setattr(fold_runs, "write_scores", killed)
    with pytest.raises(KeyboardInterrupt):
        fold_runs.run_folds(FoldOptions(tmp_path, "logmel"), [Fold("1", TRAIN, VALID, TEST)], LABELS, 2, print)
    assert not (tmp_path / "fold1/result.json").exists()


def test_tested_probe_has_seen_the_validation_clips(scores_of):
    features = SIGN.copy()
    features[TRAIN] = np.array([1.0, 1.0, -1.0, -1.0]).repeat(5)[:, None]  # says nothing about the class
    scores, _ = scores_of(features)
    assert scores["linear"].valid < 0.9 and scores["linear"].test == 1


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("knn", 0.5)], "other rows than those of fold 1"),
        ([("linear", 0.5), ("linear", 0.5)], "2 rows, 1 of them different"),
        ([("linear", 10**400)], "OverflowError"),
        ([("linear", 5)], "linear has 5 and 0.5; expected 0 to 1"),
    ],
)
def test_damaged_result_of_a_fold_is_reported(tmp_path, rows, sentence):
    for fold, stored in (("1", [("linear", 0.5)]), ("2", rows)):
        (tmp_path / f"fold{fold}").mkdir()
        named = [{"features": "", "pooling": "", "probe": name, "valid": valid, "test": 0.5} for name, valid in stored]
        (tmp_path / f"fold{fold}" / "result.json").write_text(json.dumps({"rows": named}))
    with pytest.raises(InputError, match="remove it to do the fold again") as error:
        run_folds(FoldOptions(tmp_path, "logmel"), [Fold(f, TRAIN, VALID, TEST) for f in "12"], LABELS, 2, print)
    assert sentence in str(error.value) and "fold2" in str(error.value)
