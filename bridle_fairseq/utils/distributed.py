"""The collectives of the package, as plain functions that do nothing where there is no process group."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

GOLDEN_RATIO = 0x9E3779B97F4A7C15  # of 2**64: its multiples are far from each other in all their bits (splitmix64)


def world_size() -> int:
    """Number of processes that train together: 1 without an initialised process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them: 0 without an initialised process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def decorrelate_rng() -> None:
    """Give this rank random numbers of its own from here on.

    fairseq seeds the generators of all ranks alike at every update: each would hide the same places and mix in the same
    way. What the new numbers are follows from the state of the generator, so a resumed run draws the same. Rank 0 goes
    on as if it were alone.
    """
    if rank() > 0:
        drawn = int(torch.randint(2**62, ()))
        torch.manual_seed((drawn + rank() * GOLDEN_RATIO) % 2**63)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum ``tensor`` (any shape, the same on every rank) over the ranks, in place, and return it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_sum_together(tensors: list[Tensor]) -> None:
    """Sum each of ``tensors`` (one dtype, any shapes) over the ranks in place, with a single collective."""
    if world_size() == 1:
        return
    summed = all_reduce_sum(torch.cat([tensor.reshape(-1) for tensor in tensors]))
    for tensor, part in zip(tensors, summed.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def gather_equal(tensor: Tensor) -> Tensor:
    """Stack ``tensor``, of one shape on every rank, to R x ... in rank order (R ranks)."""
    if world_size() == 1:
        return tensor.unsqueeze(0)
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.stack(parts)


def row_counts(rows: Tensor) -> list[int]:
    """How many rows each rank brings, in rank order (waits for the device)."""
    return gather_equal(torch.tensor(len(rows), device=rows.device)).tolist()


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate ``rows`` (n x ..., n may differ between ranks and may be 0) of all ranks in rank order."""
    if world_size() == 1:
        return rows
    counts = row_counts(rows)
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    return torch.cat([part[:count] for part, count in zip(gather_equal(padded), counts, strict=True)])


def gather_sample(rows: Tensor, limit: int, seed: int) -> tuple[Tensor, int]:
    """Draw at most ``limit`` of the rows (n x ..., n may differ between ranks) that all ranks have together.

    Returns the drawn rows, in the order of :func:`gather_rows`, and how many there were to draw from. Which rows are
    drawn depends on their place in that order alone, not on how they are spread over the ranks.
    """
    counts = row_counts(rows)
    total, before = sum(counts), sum(counts[: rank()])
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(total, generator=draw)[:limit].sort().values
    mine = drawn[(drawn >= before) & (drawn < before + len(rows))] - before
    return gather_rows(rows[mine.to(rows.device)]), total


def broadcast(tensor: Tensor, source: int = 0) -> Tensor:
    """Overwrite ``tensor`` (the same shape on every rank) with rank ``source``'s, and return it."""
    if world_size() > 1:
        dist.broadcast(tensor, source)
    return tensor
