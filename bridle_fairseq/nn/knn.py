"""Classification by the nearest neighbours of a vector, weighted by cosine similarity (Wu et al. 2018, section 3.4).

arXiv 1805.01978: a neighbour of similarity s votes with exp(s / temperature).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

QUERIES_AT_ONCE = 1024


class Scaling(NamedTuple):
    """Mean and deviation of each feature, 1 x d."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Scaling:
        """Those of the rows of ``features`` (n x d)."""
        return cls(features.mean(0, keepdim=True), features.std(0, correction=0, keepdim=True).clamp(min=1e-6))

    def __call__(self, features: Tensor) -> Tensor:
        """Features with mean 0 and deviation 1: without it, all vectors share one direction and are alike."""
        return (features - self.mean) / self.deviation


class Neighbours(NamedTuple):
    """The nearest rows of a bank for each query, the nearest first: Q x k each."""

    similarity: Tensor
    rows: Tensor


def nearest(bank: Tensor, queries: Tensor, k: int) -> Neighbours:
    """The ``k`` rows of ``bank`` (n x d; all when there are fewer) most similar by cosine to each query (Q x d)."""
    bank, k = functional.normalize(bank, dim=1), min(k, len(bank))
    parts = [(functional.normalize(some, dim=1) @ bank.T).topk(k, dim=1) for some in queries.split(QUERIES_AT_ONCE)]
    return Neighbours(torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts]))


def vote(neighbours: Neighbours, targets: Tensor, k: int, temperature: float) -> Tensor:
    """Scores of the classes by the ``k`` nearest neighbours, Q x C; they sum to 1 where each row has one class.

    Args:
        neighbours: at least ``k`` of them, or all there are.
        targets: n x C, 1 at the classes of the bank's rows.
        k: how many vote.
        temperature: the smaller, the more the nearest ones count.
    """
    weights = (neighbours.similarity[:, :k] / temperature).softmax(1)
    return (targets[neighbours.rows[:, :k]] * weights.unsqueeze(-1)).sum(1)


def knn_accuracy(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor, k: int, temperature: float = 0.07
) -> float:
    """Share of the queries whose class the ``k`` nearest rows of the bank tell.

    Args:
        bank: n x d features, and their classes n.
        queries: Q x d features, and their classes Q.
        k: neighbours.
        temperature: see :func:`vote`.
    """
    scaling = Scaling.of(bank)
    classes = int(max(bank_labels.max(), labels.max())) + 1
    targets = functional.one_hot(bank_labels, classes).float()
    scores = vote(nearest(scaling(bank), scaling(queries), k), targets, k, temperature)
    return float((scores.argmax(1) == labels).float().mean())
