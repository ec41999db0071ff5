"""Cross-validation of probes."""

import numpy as np
import pytest

from bridle_fairseq.data.artifacts.features import FeatureArray
from bridle_fairseq.evaluation.probe import Split
from bridle_fairseq.evaluation.probe_data import ProbeData
from bridle_fairseq.evaluation.probe_folds import cross_validate, stratified_folds
from bridle_fairseq.utils.errors import InputError


def data_of(count, separable=True, classes=3):
    labels = np.arange(count) % classes
    features = np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)
    if separable:
        features[:, 0] += 20 * labels
    array = FeatureArray("encoder", "mean", 1, 4)
    nothing = features[:0]
    return ProbeData({array: Split(features, nothing, nothing)}, Split(labels, labels[:0], labels[:0]))


def test_classes_are_dealt_out_evenly():
    labels = np.repeat(np.arange(3), (20, 10, 5))
    folds = stratified_folds(labels, 5, 0)
    for number, count in enumerate((4, 2, 1)):
        assert np.bincount(folds[labels == number], minlength=5).tolist() == [count] * 5
    assert not np.array_equal(folds, stratified_folds(labels, 5, 1))
    multi_hot = np.eye(3)[labels]
    assert np.array_equal(stratified_folds(multi_hot, 5, 0), folds)


def test_every_clip_is_tested_by_a_probe_that_has_not_seen_it():
    rows, folds = cross_validate(data_of(60), ["linear", "knn"], False, 1)
    assert folds == 5 and [row.probe for row in rows] == ["linear", "knn"] and min(row.test for row in rows) > 0.8
    assert [len(outcome.scores) for outcome in rows[0].outcomes] == [12] * 5
    rows, _ = cross_validate(data_of(60, separable=False), ["knn"], False, 1)
    assert rows[0].test < 0.7  # a clip among its own neighbours would be found


def test_too_few_clips():
    with pytest.raises(InputError, match="5 training clips and no test split; expected 6 at least, or a test split"):
        cross_validate(data_of(5), ["knn"], False, 1)
    with pytest.raises(InputError, match="leaves a single class to fit to"):
        cross_validate(data_of(10, classes=1), ["knn"], False, 1)
