"""k-nearest-neighbour classification, weighted by cosine similarity (Wu et al. 2018, arXiv 1805.01978, section 3.4).

A neighbour of similarity s votes with weight exp(s / temperature).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

QUERIES_AT_ONCE = 1024


class Scaling(NamedTuple):
    """Mean and standard deviation of each feature, 1 x d."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Scaling:
        """Statistics of the rows of ``features`` (n x d)."""
        return cls(features.mean(0, keepdim=True), features.std(0, correction=0, keepdim=True).clamp(min=1e-6))

    def __call__(self, features: Tensor) -> Tensor:
        """Standardize features, n x d. Otherwise a common mean makes all vectors similar."""
        return (features - self.mean) / self.deviation


class Neighbours(NamedTuple):
    """The nearest rows of a bank for each query, nearest first: Q x k each."""

    similarity: Tensor
    rows: Tensor


def nearest_neighbours(bank: Tensor, queries: Tensor, k: int) -> Neighbours:
    """The ``k`` rows of ``bank`` (n x d, or all if n < k) with the largest cosine similarity to each query (Q x d)."""
    bank, k = functional.normalize(bank, dim=1), min(k, len(bank))
    best = [(functional.normalize(some, dim=1) @ bank.T).topk(k, dim=1) for some in queries.split(QUERIES_AT_ONCE)]
    return Neighbours(torch.cat([top.values for top in best]), torch.cat([top.indices for top in best]))


def vote(neighbours: Neighbours, targets: Tensor, k: int, temperature: float) -> Tensor:
    """Class scores from the ``k`` nearest neighbours, Q x C; they sum to 1 if each row has one class.

    Args:
        neighbours: at least ``k`` per query, or the whole bank.
        targets: n x C, 1 at the classes of the bank's rows.
        k: number of neighbours that vote.
        temperature: a smaller one gives the nearest neighbours more weight.
    """
    weights = (neighbours.similarity[:, :k] / temperature).softmax(1)  # Q x k
    return (targets[neighbours.rows[:, :k]] * weights.unsqueeze(-1)).sum(1)  # Q x k x C -> Q x C


def knn_accuracy(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor, k: int, temperature: float = 0.07
) -> float:
    """Accuracy of k-nearest-neighbour classification.

    Args:
        bank, bank_labels: n x d features and their n classes.
        queries, labels: Q x d features and their Q classes.
        k: number of neighbours.
        temperature: see :func:`vote`.
    """
    scaling = Scaling.of(bank)
    classes = int(max(bank_labels.max(), labels.max())) + 1
    targets = functional.one_hot(bank_labels, classes).float()
    scores = vote(nearest_neighbours(scaling(bank), scaling(queries), k), targets, k, temperature)
    return float((scores.argmax(1) == labels).float().mean())
