"""Fixed sine-cosine positions, computed for the grid at hand (never a table of one size)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def _axis(index: Tensor, width: int) -> Tensor:
    """... x width: sines, then cosines, of indices at geometric frequencies from 1 to 1/10000."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float64, device=index.device)
    frequency = torch.exp(steps * (-math.log(10000.0) / max(half, 1)))
    angle = index.double().unsqueeze(-1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _widths(axes: int, width: int) -> list[int]:
    share = width // axes // 2 * 2
    return [width // 2 * 2 - share * (axes - 1), *[share] * (axes - 1)]


def _table(grid: tuple[int, ...], width: int) -> Tensor:
    parts = []
    for axis, (length, part) in enumerate(zip(grid, _widths(len(grid), width), strict=True)):
        shape = [1] * len(grid)
        shape[axis] = length
        parts.append(_axis(torch.arange(length), part).reshape(*shape, part).expand(*grid, part))
    table = torch.cat(parts, dim=-1).reshape(math.prod(grid), -1)
    return torch.nn.functional.pad(table, (0, width - table.shape[1])).float()


@lru_cache(maxsize=64)
def _kept_table(grid: tuple[int, ...], width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A table where it is needed: copied to a device once, not in every forward pass."""
    return _table(grid, width).to(device, dtype)


def sincos_position(grid: Sequence[int], width: int, like: Tensor | None = None, first: Tensor | None = None) -> Tensor:
    """Positions of a grid, N x D float32: each axis has its own share of the width.

    Args:
        grid: patches along each axis.
        width: D; the axes share it evenly in even parts, the first one takes what remains.
        like: tensor whose device and dtype the result takes.
        first: B; what the first axis counts from in each clip, for grids that are cut out of longer ones (0 by
            default). The result is then B x N x D.

    Source: sin-cos embedding of MAE (arXiv 2111.06377), extended to any number of axes.
    """
    # What torch.export traces with are no real tensors, and must not be kept for those who come later.
    # Nor are the sizes numbers there: a graph is for any of them.
    if torch.compiler.is_compiling():
        table = _table(tuple(grid), width)
        table = table if like is None else table.to(like)
    else:
        device, dtype = (torch.device("cpu"), torch.float32) if like is None else (like.device, like.dtype)
        table = _kept_table(tuple(int(n) for n in grid), int(width), device, dtype)
    if first is None:
        return table
    own = _widths(len(grid), width)[0]
    index = first.to(table.device)[:, None] + torch.arange(grid[0], device=table.device)
    positions = table.unflatten(0, (grid[0], -1)).repeat(len(first), 1, 1, 1)
    positions[..., :own] = _axis(index, own).to(table)[:, :, None]
    return positions.flatten(1, 2)
