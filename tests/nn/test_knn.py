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


def test_accuracy_equals_a_float64_loop() -> None:
    """The statistics of the bank alone scale the features; those of the queries are others."""
    torch.manual_seed(0)
    bank_labels, labels = torch.arange(60) % 3, torch.arange(90) % 3
    centres = 1.2 * torch.randn(3, 6)
    bank = centres[bank_labels] + torch.randn(60, 6)
    queries = centres[labels] + torch.randn(90, 6) + torch.tensor([3.0, 0, 0, 0, 0, 0])

    def accuracy(of: torch.Tensor) -> float:
        mean, deviation = of.double().mean(0), of.double().std(0, correction=0)
        scaled = [(part.double() - mean) / deviation for part in (bank, queries)]
        right = 0
        for query, label in zip(scaled[1], labels.tolist(), strict=True):
            similarity = (scaled[0] @ query) / scaled[0].norm(dim=1) / query.norm()
            votes = [0.0, 0.0, 0.0]
            for row in similarity.argsort(descending=True)[:5].tolist():
                votes[int(bank_labels[row])] += float((similarity[row] / 0.07).exp())
            right += votes.index(max(votes)) == label
        return right / 90

    assert knn.knn_accuracy(bank, bank_labels, queries, labels, k=5) == pytest.approx(accuracy(bank))
    assert 0.4 < accuracy(bank) < 0.9 and abs(accuracy(torch.cat([bank, queries])) - accuracy(bank)) > 0.05


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
