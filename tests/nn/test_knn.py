"""k-nearest-neighbour classification: votes, and invariance to scale and offset."""

from __future__ import annotations

import pytest
import torch

from bridle_fairseq.nn import knn


def test_votes_are_weighted_by_similarity() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    found = knn.nearest_neighbours(bank, torch.tensor([[3.0, 4.0]]), 2)
    assert found.rows.tolist() == [[1, 0]]
    torch.testing.assert_close(found.similarity, torch.tensor([[0.8, 0.6]]))
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    expected = torch.tensor([0.6, 0.8]).div(0.5).softmax(0)
    torch.testing.assert_close(knn.vote(found, targets, 2, 0.5), expected[None])
    assert knn.vote(found, targets, 1, 0.5).tolist() == [[0.0, 1.0]]


def test_more_neighbours_than_rows_returns_all_rows(monkeypatch) -> None:
    monkeypatch.setattr(knn, "QUERIES_AT_ONCE", 3)
    bank, queries = torch.randn(4, 5), torch.randn(10, 5)
    found = knn.nearest_neighbours(bank, queries, 9)
    assert found.rows.shape == (10, 4)
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], bank[None], dim=-1)
    torch.testing.assert_close(found.similarity, cosine.sort(1, descending=True).values)


def test_accuracy_finds_classes_under_a_large_common_offset() -> None:
    torch.manual_seed(0)
    labels = torch.arange(90) % 3
    centres = torch.randn(3, 8)
    features = centres[labels] + 0.3 * torch.randn(90, 8)
    shifted = features * torch.logspace(-3, 3, 8) + 1000  # as an encoder's: one direction, features of any scale
    plain = knn.knn_accuracy(features[:60], labels[:60], features[60:], labels[60:], k=5)
    assert plain > 0.9
    assert knn.knn_accuracy(shifted[:60], labels[:60], shifted[60:], labels[60:], k=5) == pytest.approx(plain, abs=0.05)
    shuffled = labels[torch.randperm(90)]
    assert knn.knn_accuracy(features[:60], shuffled[:60], features[60:], shuffled[60:], k=5) < 0.7
