"""k-means, the start of a codebook: seeded, the same result on every device and rank that holds the same rows."""

from __future__ import annotations

import torch
from torch import Tensor

from bridle_fairseq.quantization.codebook import nearest, rows_at_once

SEEDING_ROUNDS = 16
COPY_JITTER = 1e-3


def kmeans(
    rows: Tensor, num_clusters: int, *, iterations: int = 10, cosine: bool = False, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Cluster ``rows`` (n x D float32, n >= 1) into centres (C x D) with the rows that each has (C, long).

    Centres are means of their rows; with ``cosine`` a row belongs to the centre of the nearest direction. Empty
    clusters move to the rows that fit worst. With fewer rows than clusters each row is a centre, and the other
    centres are copies with a jitter, which have no rows. Beside the rows, memory is taken for a few values of each row
    and for a bounded number of distances.
    """
    draw = torch.Generator().manual_seed(seed)
    if len(rows) <= num_clusters:
        centres = _jittered_copies(rows, num_clusters, draw)
        return centres, (torch.arange(num_clusters, device=rows.device) < len(rows)).long()
    centres = _spread_rows(rows, num_clusters, cosine, draw)
    for _ in range(iterations):
        owner, distance = nearest_with_distance(rows, centres, cosine)
        counts = torch.bincount(owner, minlength=num_clusters)
        sums = torch.zeros_like(centres).index_add_(0, owner, rows)
        centres = sums / counts.clamp_min(1).unsqueeze(1)
        empty = (counts == 0).nonzero().squeeze(1)
        centres[empty] = rows[distance.topk(len(empty)).indices]
    owner = nearest(rows, centres, cosine)
    return centres, torch.bincount(owner, minlength=num_clusters)


def nearest_with_distance(rows: Tensor, centres: Tensor, cosine: bool) -> tuple[Tensor, Tensor]:
    """Index of each row's nearest centre (n, long) and the squared distance to it (n)."""
    owner, distance = nearest(rows, centres, cosine), rows.new_empty(len(rows))
    step = rows_at_once(rows, rows.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        distance[part] = (rows[part] - centres[owner[part]]).square().sum(dim=1)
    return owner, distance


def _jittered_copies(rows: Tensor, num_clusters: int, draw: torch.Generator) -> Tensor:
    copies = rows[torch.arange(num_clusters, device=rows.device) % len(rows)].clone()
    scale = COPY_JITTER * rows.square().mean().sqrt()
    noise = torch.randn(num_clusters - len(rows), rows.shape[1], generator=draw).to(rows.device)
    copies[len(rows) :] += scale * noise
    return copies


def _spread_rows(rows: Tensor, num_clusters: int, cosine: bool, draw: torch.Generator) -> Tensor:
    """k-means++ in a few rounds: each draws many rows at once, weighted by the squared distance to those drawn."""
    weight = torch.ones(len(rows), device=rows.device)
    per_round = -(-num_clusters // SEEDING_ROUNDS)
    chosen = rows[:0]
    while len(chosen) < num_clusters:
        uniform = torch.rand(len(rows), generator=draw).clamp_min(1e-12).to(rows.device)
        # the smallest of -log(u) / w are a draw without replacement with probabilities in proportion to w
        lots = -uniform.log() / weight.clamp_min(1e-20)
        new = rows[lots.topk(min(per_round, num_clusters - len(chosen)), largest=False).indices]
        _, distance = nearest_with_distance(rows, new, cosine)
        weight = torch.minimum(weight, distance) if len(chosen) else distance
        chosen = torch.cat([chosen, new])
    return chosen
