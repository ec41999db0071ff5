"""Fixed sine-cosine positions, computed for the grid at hand (never a table of one size)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def _axis(length: int, width: int) -> Tensor:
    """length x width: sines, then cosines, of the index at geometric frequencies from 1 to 1/10000."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000.0) / max(half, 1)))
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency[None]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _table(grid: tuple[int, ...], width: int) -> Tensor:
    share = width // len(grid) // 2 * 2
    widths = [width // 2 * 2 - share * (len(grid) - 1), *[share] * (len(grid) - 1)]
    parts = []
    for axis, (length, part) in enumerate(zip(grid, widths, strict=True)):
        shape = [1] * len(grid)
        shape[axis] = length
        parts.append(_axis(length, part).reshape(*shape, part).expand(*grid, part))
    table = torch.cat(parts, dim=-1).reshape(math.prod(grid), -1)
    return torch.nn.functional.pad(table, (0, width - table.shape[1])).float()


_kept_table = lru_cache(maxsize=64)(_table)


def sincos_position(grid: Sequence[int], width: int, like: Tensor | None = None) -> Tensor:
    """Positions of a grid, N x D float32: each axis has its own share of the width.

    Args:
        grid: patches along each axis.
        width: D; the axes share it evenly in even parts, the first one takes what remains.
        like: tensor whose device and dtype the result takes.

    Source: sin-cos embedding of MAE (arXiv 2111.06377), extended to any number of axes.
    """
    # What torch.export traces with are no real tensors, and must not be kept for those who come later.
    find = _table if torch.compiler.is_compiling() else _kept_table
    table = find(tuple(int(n) for n in grid), int(width))
    return table if like is None else table.to(like)
