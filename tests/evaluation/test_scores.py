"""Scores of a set of clips."""

from __future__ import annotations

import numpy as np

from bridle_fairseq.evaluation.scores import score_of


def test_map_ignores_absent_classes() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    targets, scores = rng.integers(0, 2, (40, 3)), rng.random((40, 3))
    targets[:, 1] = 0
    scores = scores.round(1)  # with ties
    expected = np.mean([average_precision_score(targets[:, c], scores[:, c]) for c in (0, 2)])
    assert score_of(scores, targets, True) == expected


def test_map_of_no_positive_is_0() -> None:
    assert score_of(np.ones((3, 2)), np.zeros((3, 2)), True) == 0.0
