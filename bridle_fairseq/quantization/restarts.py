"""Restarts of dead codes from vectors of the batch (Dhariwal et al. 2020, arXiv 2005.00341).

A candidate is a point where a dead code may restart. The rows with the lowest priorities, hashes in [0, 1), are drawn,
and each gives one candidate per level. A level has a fixed number of slots; the priority of an empty one is ``inf``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bridle_fairseq.utils import distributed

MAX_RESTARTS = 64  # per level and update
HASHED_VALUES = 16  # at most so many values of a row are hashed


def restart_priorities(rows: Tensor, valid: Tensor, num_updates: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Draw at most ``count`` of the valid rows: their priorities (p) and indices (p).

    A row is hashed together with the number of the update. So the same rows are drawn however the batch is split over
    ranks and forward passes, equal rows have equal priorities, and there is no random state to save.

    Args:
        rows: n x D float32.
        valid: n bool; the priority of the other rows is ``inf``.
        num_updates: scalar, long.
        count: maximum number of rows drawn.
    """
    dim = rows.shape[1]
    step = -(-dim // HASHED_VALUES)  # rounded up
    words = rows[:, ::step].contiguous().view(torch.int32).long()  # the bits of every step-th value: n x at most 16
    position = torch.arange(1, words.shape[1] + 1, device=rows.device)
    # A multiplicative hash with the odd constants of common generators; int64 products wrap around.
    hashed = ((words + 0x9E3779B9) * (position * 0x2545F4914F6CDD1D)).sum(dim=1) + num_updates * 0x5851F42D4C957F2D
    for _ in range(2):
        hashed = (hashed ^ (hashed >> 29)) * 0x3C79AC492BA7B653
    uniform = ((hashed >> 33) & 0xFFFFFF).to(torch.float32) / (1 << 24)  # 24 bits: exact in float32
    priorities = uniform.masked_fill(~valid, math.inf)
    drawn = priorities.topk(min(len(priorities), count), largest=False)
    return drawn.values, drawn.indices


def sync_candidates(priorities: Tensor, candidates: Tensor) -> None:
    """Keep the P candidates of all ranks with the lowest priorities, in place. Collective.

    Candidates of other ranks are set to 0 here. The sum of ``candidates`` over the ranks then has all of them.

    Args:
        priorities: K x P, of this rank's candidates.
        candidates: K x P x D.
    """
    if distributed.world_size() == 1:
        return
    slots = priorities.shape[1]
    of_all_ranks = distributed.gather_equal(priorities).transpose(0, 1).flatten(1)  # R x K x P -> K x (R * P)
    lowest = of_all_ranks.topk(slots, dim=1, largest=False)
    own = lowest.indices // slots == distributed.rank()
    index = (lowest.indices % slots).unsqueeze(2).expand_as(candidates)
    candidates.copy_(candidates.gather(1, index).masked_fill(~own.unsqueeze(2), 0.0))
    priorities.copy_(lowest.values)


def restart_dead_codes(
    codes: Tensor, sizes: Tensor, sums: Tensor, priorities: Tensor, candidates: Tensor, threshold: float
) -> Tensor:
    """Move dead codes to candidates, in place, starting with the lowest average count.

    A code is dead if its average count is below ``threshold`` times the mean of its level. A restarted code gets this
    mean count and the matching sum. If it kept its old averages, the next update would move it back.

    Args:
        codes: K x C x D.
        sizes: K x C, average counts.
        sums: K x C x D, average sums.
        priorities: K x P.
        candidates: K x P x D.
        threshold: fraction of the mean count.

    Returns:
        Number of restarted codes of each level, K.
    """
    mean = sizes.mean(dim=1, keepdim=True)
    priorities, order = priorities.sort(dim=1)
    rows = candidates.gather(1, order.unsqueeze(2).expand_as(candidates))
    usable = priorities.isfinite()
    # Equal priorities mean equal vectors: a second code there would win no vector.
    usable[:, 1:] &= priorities[:, 1:] != priorities[:, :-1]
    smallest = sizes.topk(priorities.shape[1], dim=1, largest=False)
    restart = usable & (smallest.values < threshold * mean)  # K x P
    index = smallest.indices.unsqueeze(2).expand_as(rows)
    codes.scatter_(1, index, torch.where(restart.unsqueeze(2), rows, codes.gather(1, index)))
    sums.scatter_(1, index, torch.where(restart.unsqueeze(2), rows * mean.unsqueeze(2), sums.gather(1, index)))
    sizes.scatter_(1, smallest.indices, torch.where(restart, mean, smallest.values))
    return restart.sum(dim=1)
