"""The comparison of features: one row per kind, the layer chosen on validation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bridle_fairseq.data.artifacts.features import FeatureArray
from bridle_fairseq.evaluation import probe_table as comparison
from bridle_fairseq.evaluation.probe import Split


def test_row_per_kind_with_the_best_layer(tmp_path) -> None:
    rng = np.random.default_rng(0)
    labels = Split(*(np.arange(n) % 2 for n in (40, 20, 20)))

    def features(strength: float) -> Split:
        return Split(*(strength * (part[:, None] - 0.5) + rng.normal(size=(len(part), 4)) for part in labels))

    given = {
        FeatureArray("encoder", "mean", 1, 4): features(0.0),
        FeatureArray("encoder", "mean", 2, 4): features(6.0),
        FeatureArray("log-mel", "deviation", 0, 4): features(0.0),
    }
    said: list[str] = []
    rows = comparison.compare(given, labels, ("linear", "knn"), said.append, resamples=20)
    assert said == [f"{row.probe} probe of {row.features}, {row.pooling}" for row in rows]
    assert [(row.features, row.probe, row.layer) for row in rows] == [
        ("encoder", "linear", 2),
        ("encoder", "knn", 2),
        ("log-mel", "linear", 0),
        ("log-mel", "knn", 0),
    ]
    assert rows[0].test > 0.9 > rows[2].test
    text = comparison.table(rows, "accuracy")
    assert f"{rows[0].test:.3f}" in text and "layer 2, C = " in text
    below = text.split("validation by layer")[1].splitlines()
    assert below[0].split() == ["1", "2"] and len(below) == 3  # the log-mel has no layers


def test_chosen_value_at_the_end_of_the_range_is_said() -> None:
    row = comparison.ProbeRow("encoder", "mean", "linear", 3, {"C": 1e-7}, 0.5, 0.25, None, {3: 0.5})
    assert row.chosen == "layer 3, C = 1e-07"
    assert row._replace(at_end=True).chosen == "layer 3, C = 1e-07, at the end of the range"


def test_aligned_columns() -> None:
    assert comparison.aligned([["a", "n"], ["long", "1.5"], ["b", "10"]]) == "a       n\nlong  1.5\nb      10"


def test_finite_rows() -> None:
    arrays = {"a": np.array([[1.0], [np.nan], [2.0]]), "b": np.array([[1.0], [2.0], [3.0]])}
    assert comparison.finite_rows(arrays).tolist() == [True, False, True]


def test_the_json_of_a_result_is_written_last(tmp_path, monkeypatch) -> None:
    """A fold with it is not run again after a kill, so its other files must be there."""
    row = comparison.ProbeRow("encoder", "mean", "k-NN", 1, {"k": 5.0}, 0.5, 0.25, None, {1: 0.5})

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(comparison, "write_table", killed)
        comparison.write([row], {"fold": "1"}, tmp_path, "result")
    assert list(tmp_path.iterdir()) == []
    comparison.write([row], {"fold": "1"}, tmp_path, "result")
    assert json.loads((tmp_path / "result.json").read_text())["fold"] == "1"
    assert (tmp_path / "result.csv").read_text().splitlines()[1].startswith("encoder,mean,k-NN,")
