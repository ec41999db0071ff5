"""The encoder against the others: which rows are compared, and the interval of the difference."""

from __future__ import annotations

import numpy as np
import pytest

from bridle_fairseq.evaluation.paired import best_rows, comparisons, text
from bridle_fairseq.evaluation.probe_table import ProbeRow
from bridle_fairseq.evaluation.scores import Outcome

TARGETS = np.eye(2)[np.arange(40) % 2]


def row(features: str, pooling: str, valid: float, wrong: int, probe: str = "linear", folds: int = 1) -> ProbeRow:
    """A probe that is wrong about the first clips of each test set."""
    scores = TARGETS.copy()
    scores[:wrong] = 1 - scores[:wrong]
    outcomes = (Outcome(scores, TARGETS),) * folds
    return ProbeRow(features, pooling, probe, 1, {}, valid, 1 - wrong / 40, None, {}, outcomes=outcomes)


ROWS = [
    row("encoder", "mean", 0.7, wrong=2),
    row("encoder", "frequency", 0.9, wrong=4),  # validates best, whatever the test says
    row("untrained", "mean", 0.5, wrong=20),
    row("log-mel", "deviation", 0.6, wrong=8),
    row("log-mel", "segments", 0.4, wrong=0),
    row("encoder", "mean", 0.8, wrong=10, probe="knn"),
    row("against", "mean", 0.8, wrong=6, probe="knn"),
]


def test_rows_that_validate_best_are_compared() -> None:
    assert [best.pooling for best in best_rows(ROWS, "linear").values()] == ["frequency", "mean", "deviation"]
    found = comparisons(ROWS, False, 100, 1)
    assert [(one.probe, one.second.name) for one in found] == [
        ("linear", "untrained, mean, linear"),
        ("linear", "log-mel, deviation, linear"),
        ("knn", "against, mean, knn"),
    ]
    assert [one.difference.value for one in found] == pytest.approx([0.4, 0.1, -0.1])
    for one in found:
        assert one.difference.low < one.difference.value < one.difference.high
    assert found[0].fields() == {
        "probe": "linear",
        "first": "encoder, frequency, linear",
        "second": "untrained, mean, linear",
        **found[0].difference._asdict(),
    }
    printed = text(found, "accuracy")
    assert "encoder, frequency - log-mel, deviation" in printed and "+0.100" in printed and "-0.100" in printed


def test_folds_are_resampled_apart_and_weighted_by_their_clips() -> None:
    rows = [row("encoder", "mean", 0.7, wrong=0, folds=2), row("untrained", "mean", 0.5, wrong=8, folds=2)]
    short = tuple(Outcome(scores[:10], targets[:10]) for scores, targets in rows[1].outcomes[:1])
    more = [rows[0]._replace(outcomes=rows[0].outcomes[:1] + (Outcome(TARGETS[:10], TARGETS[:10]),))]
    more += [rows[1]._replace(outcomes=rows[1].outcomes[:1] + short)]
    (found,) = comparisons(more, False, 50, 1)
    assert found.difference.value == pytest.approx((8 + 8) / 50)


def test_nothing_to_compare() -> None:
    assert comparisons([row("log-mel", "deviation", 0.6, wrong=8)], False, 10, 1) == []
    assert comparisons([row("encoder", "mean", 0.6, wrong=8)], False, 10, 1) == []
