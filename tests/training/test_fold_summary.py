"""The table of a cross-validation: what is chosen, and metrics that a fold does not define."""

from __future__ import annotations

import json
from statistics import mean, stdev

import numpy as np
import pytest

from bridle_fairseq.training.fold_outcomes import FoldScore
from bridle_fairseq.training.fold_summary import CHOSEN, write_summary


def test_chosen_score_is_the_test_score_of_what_validates_best(tmp_path):
    scores = {
        "1": [FoldScore("a", valid=0.9, test=0.1), FoldScore("b", valid=0.2, test=0.8)],
        "2": [FoldScore("a", valid=0.3, test=0.4), FoldScore("b", valid=0.6, test=0.7)],
    }
    text = write_summary(scores, tmp_path, {})
    rows = {row["name"]: row for row in json.loads((tmp_path / "crossval.json").read_text())["rows"]}
    assert rows[CHOSEN]["folds"] == [0.1, 0.7] and rows["a"]["folds"] == [0.1, 0.4] and rows["b"]["folds"] == [0.8, 0.7]
    assert rows[CHOSEN]["mean"] == pytest.approx(0.4) and rows[CHOSEN]["std"] == pytest.approx(0.3 * 2**0.5)
    assert rows["a"] == {"name": "a", "folds": [0.1, 0.4], "mean": mean([0.1, 0.4]), "std": stdev([0.1, 0.4])}
    assert "0.400  0.424" in text


def test_undefined_metric_of_a_fold_makes_the_mean_undefined(tmp_path):
    write_summary({"1": [FoldScore("a", 0.5, np.nan)], "2": [FoldScore("a", 0.5, 0.5)]}, tmp_path, {})
    (row,) = json.loads((tmp_path / "crossval.json").read_text())["rows"]
    assert np.isnan(row["mean"]) and np.isnan(row["std"])
