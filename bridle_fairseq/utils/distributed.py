"""Collectives as plain functions. Without a process group they do nothing."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

GOLDEN_RATIO = 0x9E3779B97F4A7C15  # of 2**64; its multiples differ in many bits (splitmix64)


def world_size() -> int:
    """Number of processes; 1 without an initialized process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process; 0 without an initialized process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def decorrelate_rng() -> None:
    """Give each rank different random numbers from here on.

    fairseq seeds all ranks alike at every update, so they would draw the same masks and the same mixup. The new seed is
    derived from the state of the generator, so a resumed run draws the same numbers. Rank 0 keeps its state.
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
    for tensor, total in zip(tensors, summed.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def gather_equal(tensor: Tensor) -> Tensor:
    """Stack ``tensor``, of one shape on every rank, to R x ... in rank order (R ranks)."""
    if world_size() == 1:
        return tensor.unsqueeze(0)
    gathered = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(gathered, tensor.contiguous())
    return torch.stack(gathered)


def row_counts(rows: Tensor) -> list[int]:
    """Number of rows on each rank, in rank order; synchronizes with the device."""
    return gather_equal(torch.tensor(len(rows), device=rows.device)).tolist()


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate ``rows`` (n x ..., n may differ between ranks and may be 0) of all ranks, in rank order."""
    if world_size() == 1:
        return rows
    counts = row_counts(rows)
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    return torch.cat([of_rank[:count] for of_rank, count in zip(gather_equal(padded), counts, strict=True)])


def gather_sample(rows: Tensor, limit: int, seed: int) -> tuple[Tensor, int]:
    """Sample at most ``limit`` of the rows (n x ..., n may differ between ranks) of all ranks.

    Returns the sample, in the order of :func:`gather_rows`, and the total number of rows. The sample depends only on
    the positions of rows in that order, not on how they are distributed over the ranks.
    """
    counts = row_counts(rows)
    total, before = sum(counts), sum(counts[: rank()])
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(total, generator=draw)[:limit].sort().values
    mine = drawn[(drawn >= before) & (drawn < before + len(rows))] - before
    return gather_rows(rows[mine.to(rows.device)]), total


def broadcast(tensor: Tensor, source: int = 0) -> Tensor:
    """Overwrite ``tensor`` (the same shape on every rank) with that of rank ``source``, and return it."""
    if world_size() > 1:
        dist.broadcast(tensor, source)
    return tensor
