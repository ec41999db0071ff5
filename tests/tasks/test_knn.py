"""The ridge probe while pretraining: which clips it is fitted to, and encoders that diverged."""

import numpy as np
import pytest
import torch

from bridle_fairseq.evaluation.ridge import leave_one_out_fit
from bridle_fairseq.tasks import knn
from bridle_fairseq.tasks.knn import _Features, _ridge_accuracy


def features(count, seed, width=6):
    torch.manual_seed(7)
    centres = torch.randn(3, width)
    torch.manual_seed(seed)
    classes = torch.arange(count) % 3
    x = centres[classes] + torch.randn(count, width)
    return _Features(np.arange(count), x[:, :2], x, classes)


def expected(bank, queries):
    fitted = leave_one_out_fit(bank.statistics.numpy(), bank.classes.numpy())
    return (fitted(queries.statistics.numpy()).argmax(1) == queries.classes.numpy()).mean()


def test_wide_features_are_fitted_to_some_clips(monkeypatch):
    bank, queries = features(60, 0), features(90, 1)
    assert _ridge_accuracy(bank, 60, queries) == pytest.approx(expected(bank, queries))
    monkeypatch.setattr(knn, "RIDGE_ROWS", 6)
    assert _ridge_accuracy(bank, 60, queries) == pytest.approx(expected(bank, queries))  # 6 features are not wide
    monkeypatch.setattr(knn, "RIDGE_ROWS", 5)
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    sample = np.sort(np.random.default_rng(0).permutation(60)[:5])
    few = bank.of(np.isin(bank.rows, sample))
    assert len(few.classes) == 5 and len(few.classes.unique()) > 1
    assert _ridge_accuracy(bank, 60, queries) == pytest.approx(expected(few, queries)) != expected(bank, queries)
    assert np.array_equal(np.random.get_state()[1], state[0]) and torch.equal(torch.get_rng_state(), state[1])


def test_features_of_a_diverged_encoder_predict_the_first_class():
    bank, queries = features(60, 0), features(90, 1)
    bank.statistics[3, 2] = torch.inf
    assert _ridge_accuracy(bank, 60, queries) == pytest.approx(1 / 3)
