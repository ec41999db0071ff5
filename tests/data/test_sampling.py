"""The rows of an epoch: shuffles within buckets of length, class-balanced weights and weighted draws."""

from __future__ import annotations

import numpy as np
import pytest

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.sampling import BucketShuffle, WeightedDraw, clip_weights, length_buckets
from bridle_fairseq.utils.errors import InputError

CLASSES = Classes(["common", "rare", "never"], ["a", "b", "c"])
ROWS = [[0]] * 8 + [[1]] + [[0, 1]] + [[]]


@pytest.fixture
def shuffle() -> BucketShuffle:
    """60 rows of lengths 1000 to 1590 in four buckets."""
    sizes = 1000 + 10 * np.arange(60)[::-1]
    return BucketShuffle(np.arange(60), sizes, 4, seed=3)


def test_each_epoch_shuffles_every_row_within_its_bucket(shuffle) -> None:
    assert (shuffle.rows(1) == np.arange(60)).all()
    assert (shuffle.sizes == np.repeat([1590, 1440, 1290, 1140], 15)).all()
    epochs = [shuffle.rows(epoch) for epoch in range(1, 6)]
    for number, rows in enumerate(epochs):
        assert all(set(rows[start : start + 15]) == set(range(start, start + 15)) for start in range(0, 60, 15))
        assert all((rows != other).sum() > 30 for other in epochs[:number])


def test_shuffle_depends_on_seed_and_epoch_only(shuffle) -> None:
    expected = shuffle.rows(7)
    again = BucketShuffle(shuffle.first, 1000 + 10 * np.arange(60)[::-1], 4, seed=3)
    assert (again.rows(2) != expected).any() and (again.rows(7) == expected).all()
    assert (BucketShuffle(shuffle.first, np.ones(60), 4, seed=4).rows(7) != expected).any()


def test_row_that_is_kept_stays_in_its_slot(shuffle) -> None:
    shuffle.keep(17)
    epochs = [shuffle.rows(epoch) for epoch in range(1, 9)]
    assert all(rows[17] == 17 and sorted(rows) == list(range(60)) for rows in epochs)
    assert len({rows[18] for rows in epochs}) > 3


def test_longest_are_in_the_first_bucket() -> None:
    assert length_buckets(np.array([3, 1, 2, 4]), 4).tolist() == [1, 3, 2, 0]
    assert len(set(length_buckets(np.array([5, 5, 5]), 4))) == 1


def test_weight_is_sum_of_inverse_class_counts() -> None:
    weights = clip_weights(Labels(ROWS, CLASSES))
    np.testing.assert_allclose(weights, [1 / 9] * 8 + [1 / 2] + [1 / 9 + 1 / 2] + [0])


def test_draws_follow_weights() -> None:
    weights = clip_weights(Labels(ROWS, CLASSES))
    rows = WeightedDraw(weights, 60000, 1, np.ones(11), 4).rows(1)
    share = np.bincount(rows, minlength=11) / 60000
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.006)
    assert share[10] == 0


def test_draw_depends_on_seed_and_epoch_only() -> None:
    weights, sizes = np.ones(50), np.arange(50)
    first = WeightedDraw(weights, 30, 1, sizes, 4).rows(4)
    np.random.default_rng().random(3)
    np.testing.assert_array_equal(WeightedDraw(weights, 30, 1, sizes, 4).rows(4), first)
    assert (WeightedDraw(weights, 30, 1, sizes, 4).rows(5) != first).any()
    assert (WeightedDraw(weights, 30, 2, sizes, 4).rows(4) != first).any()


def test_without_labels_is_an_error() -> None:
    with pytest.raises(InputError, match="task.weighted_sampling is true and no clip has a class"):
        WeightedDraw(clip_weights(Labels([[], []], CLASSES)), 5, 1, np.ones(2), 4)
