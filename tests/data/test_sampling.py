"""Weights of clips by how rare their classes are, and draws that follow them."""

from __future__ import annotations

import numpy as np
import pytest

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.sampling import WeightedDraw, clip_weights
from bridle_fairseq.utils.errors import InputError

CLASSES = Classes(["common", "rare", "never"], ["a", "b", "c"])
ROWS = [[0]] * 8 + [[1]] + [[0, 1]] + [[]]


def test_a_clip_weighs_the_sum_of_one_over_the_clips_of_its_classes() -> None:
    weights = clip_weights(Labels(ROWS, CLASSES))
    np.testing.assert_allclose(weights, [1 / 9] * 8 + [1 / 2] + [1 / 9 + 1 / 2] + [0])


def test_clips_come_as_often_as_they_weigh() -> None:
    weights = clip_weights(Labels(ROWS, CLASSES))
    rows = WeightedDraw(weights, 60000, seed=1).rows(1)
    share = np.bincount(rows, minlength=11) / 60000
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.006)
    assert share[10] == 0


def test_seed_and_epoch_decide_and_nothing_else() -> None:
    weights = np.ones(50)
    first = WeightedDraw(weights, 30, seed=1).rows(4)
    np.random.default_rng().random(3)
    np.testing.assert_array_equal(WeightedDraw(weights, 30, seed=1).rows(4), first)
    assert (WeightedDraw(weights, 30, seed=1).rows(5) != first).any()
    assert (WeightedDraw(weights, 30, seed=2).rows(4) != first).any()


def test_no_clip_has_a_class() -> None:
    with pytest.raises(InputError, match="task.weighted_sampling is true and no clip has a class"):
        WeightedDraw(clip_weights(Labels([[], []], CLASSES)), 5, seed=1)
