"""Class-balanced sampling weights and weighted draws."""

from __future__ import annotations

import numpy as np
import pytest

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.sampling import WeightedDraw, clip_weights
from bridle_fairseq.utils.errors import InputError

CLASSES = Classes(["common", "rare", "never"], ["a", "b", "c"])
ROWS = [[0]] * 8 + [[1]] + [[0, 1]] + [[]]


def test_weight_is_sum_of_inverse_class_counts() -> None:
    weights = clip_weights(Labels(ROWS, CLASSES))
    np.testing.assert_allclose(weights, [1 / 9] * 8 + [1 / 2] + [1 / 9 + 1 / 2] + [0])


def test_draws_follow_weights() -> None:
    weights = clip_weights(Labels(ROWS, CLASSES))
    rows = WeightedDraw(weights, 60000, seed=1).rows(1)
    share = np.bincount(rows, minlength=11) / 60000
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.006)
    assert share[10] == 0


def test_draw_depends_on_seed_and_epoch_only() -> None:
    weights = np.ones(50)
    first = WeightedDraw(weights, 30, seed=1).rows(4)
    np.random.default_rng().random(3)
    np.testing.assert_array_equal(WeightedDraw(weights, 30, seed=1).rows(4), first)
    assert (WeightedDraw(weights, 30, seed=1).rows(5) != first).any()
    assert (WeightedDraw(weights, 30, seed=2).rows(4) != first).any()


def test_without_labels_is_an_error() -> None:
    with pytest.raises(InputError, match="task.weighted_sampling is true and no clip has a class"):
        WeightedDraw(clip_weights(Labels([[], []], CLASSES)), 5, seed=1)
