"""Scores of a set of clips."""

from __future__ import annotations

import numpy as np
import pytest

from bridle_fairseq.evaluation.scores import Outcome, paired_difference, score_of


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


def outcomes(count: int = 400) -> tuple[Outcome, Outcome]:
    """Two classifiers that are right about 300 and 280 of the same 400 clips, and disagree about 20."""
    targets = np.eye(2)[np.arange(count) % 2]
    wrong = [np.arange(count) < number for number in (100, 120)]
    first, second = (Outcome(np.where(rows[:, None], 1 - targets, targets), targets) for rows in wrong)
    return first, second


def test_paired_difference_has_the_interval_of_the_clips_that_differ() -> None:
    first, second = outcomes()
    found = paired_difference([first], [second], False, 1000, 1)
    assert found.value == pytest.approx(0.05)
    share = 20 / 400  # each clip differs or not: a binomial; unpaired, the interval is more than twice as wide
    expected = 2 * 1.96 * (share * (1 - share) / 400) ** 0.5
    assert found.high - found.low == pytest.approx(expected, rel=0.15)
    assert found.low > 0
    assert found == paired_difference([first], [second], False, 1000, 1)
    assert paired_difference([first], [first], False, 100, 1) == (0.0, 0.0, 0.0)


def test_paired_difference_of_test_sets_is_the_mean_of_their_differences() -> None:
    first, second = outcomes()
    part = [Outcome(*(values[80:120] for values in outcome)) for outcome in (first, second)]  # differs by 0.5
    found = paired_difference([first, part[0]], [second, part[1]], False, 200, 1)
    assert found.value == pytest.approx((0.05 + 0.5) / 2)
    weighted = paired_difference([first, part[0]], [second, part[1]], False, 200, 1, [400, 40])
    assert weighted.value == pytest.approx((20 + 20) / 440)


def test_paired_difference_of_map() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((60, 3)) < 0.4).astype(float)
    first, second = (Outcome(targets + noise * rng.normal(size=targets.shape), targets) for noise in (0.3, 3.0))
    found = paired_difference([first], [second], True, 100, 1)
    scores = [score_of(outcome.scores, targets, True) for outcome in (first, second)]
    assert found.value == pytest.approx(scores[0] - scores[1]) and 0 < found.low < found.value < found.high
