"""k-means, from which codebooks are initialized: with a seed, the same result on every rank that has the same rows."""

from __future__ import annotations

import torch
from torch import Tensor

from bridle_fairseq.quantization.search import nearest_code, row_blocks

SEEDING_ROUNDS = 16
COPY_JITTER = 1e-3  # relative to the root mean square of the rows


def kmeans(
    rows: Tensor, num_clusters: int, *, iterations: int = 10, cosine: bool = False, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Cluster ``rows`` (n x D float32, n >= 1): centroids (C x D) and the number of rows of each (C, long).

    Centroids are the means of their rows; with ``cosine`` a row belongs to the centroid nearest in direction. An empty
    cluster moves to one of the rows farthest from their centroids. If there are no more rows than clusters, each row is
    a centroid, and the other centroids are jittered copies without rows.

    Beside the rows, memory is needed for a few values per row and for a bounded number of distances.
    """
    generator = torch.Generator().manual_seed(seed)
    if len(rows) <= num_clusters:
        centroids = _jittered_copies(rows, num_clusters, generator)
        return centroids, (torch.arange(num_clusters, device=rows.device) < len(rows)).long()
    centroids = _seed_centroids(rows, num_clusters, cosine, generator)
    for _ in range(iterations):
        cluster, distance = nearest_with_distance(rows, centroids, cosine)
        counts = torch.bincount(cluster, minlength=num_clusters)
        sums = torch.zeros_like(centroids).index_add_(0, cluster, rows)
        centroids = sums / counts.clamp_min(1).unsqueeze(1)
        empty = (counts == 0).nonzero().squeeze(1)
        centroids[empty] = rows[distance.topk(len(empty)).indices]
    cluster = nearest_code(rows, centroids, cosine)
    return centroids, torch.bincount(cluster, minlength=num_clusters)


def nearest_with_distance(rows: Tensor, centroids: Tensor, cosine: bool) -> tuple[Tensor, Tensor]:
    """Index of each row's nearest centroid (n) and the squared distance to it (n)."""
    cluster, distance = nearest_code(rows, centroids, cosine), rows.new_empty(len(rows))
    for block in row_blocks(rows, rows.shape[1]):
        distance[block] = (rows[block] - centroids[cluster[block]]).square().sum(dim=1)
    return cluster, distance


def _jittered_copies(rows: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    copies = rows[torch.arange(num_clusters, device=rows.device) % len(rows)].clone()
    scale = COPY_JITTER * rows.square().mean().sqrt()
    noise = torch.randn(num_clusters - len(rows), rows.shape[1], generator=generator).to(rows.device)
    copies[len(rows) :] += scale * noise
    return copies


def _seed_centroids(rows: Tensor, num_clusters: int, cosine: bool, generator: torch.Generator) -> Tensor:
    """k-means++ in a few rounds: each draws many rows at once, weighted by their distance to those drawn before.

    The weight is the squared distance to the nearest of them (Arthur and Vassilvitskii 2007).
    """
    weight = torch.ones(len(rows), device=rows.device)
    per_round = -(-num_clusters // SEEDING_ROUNDS)
    chosen = rows[:0]
    while len(chosen) < num_clusters:
        uniform = torch.rand(len(rows), generator=generator).clamp_min(1e-12).to(rows.device)
        # the rows with the smallest -log(u) / w are a draw without replacement, with probabilities proportional to w
        keys = -uniform.log() / weight.clamp_min(1e-20)
        new = rows[keys.topk(min(per_round, num_clusters - len(chosen)), largest=False).indices]
        _, distance = nearest_with_distance(rows, new, cosine)
        weight = torch.minimum(weight, distance) if len(chosen) else distance
        chosen = torch.cat([chosen, new])
    return chosen
