"""Fixed sine-cosine positions, computed for any grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def _axis(index: Tensor, width: int) -> Tensor:
    """... x width: sines, then cosines, of indices (...) at geometric frequencies from 1 to 1/10000."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float64, device=index.device)
    frequency = torch.exp(steps * (-math.log(10000.0) / max(half, 1)))
    angle = index.double().unsqueeze(-1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _widths(axes: int, width: int) -> list[int]:
    """Dimensions of each axis: even numbers of equal size; the first axis also takes the remainder."""
    share = width // axes // 2 * 2
    return [width // 2 * 2 - share * (axes - 1), *[share] * (axes - 1)]


def _table(grid: tuple[int, ...], width: int) -> Tensor:
    """N x width float32 on the CPU."""
    columns = []
    for axis, (length, size) in enumerate(zip(grid, _widths(len(grid), width), strict=True)):
        shape = [1] * len(grid)
        shape[axis] = length
        columns.append(_axis(torch.arange(length), size).reshape(*shape, size).expand(*grid, size))  # grid x size
    table = torch.cat(columns, dim=-1).reshape(math.prod(grid), -1)  # N x width, or one less if width is odd
    return torch.nn.functional.pad(table, (0, width - table.shape[1])).float()


@lru_cache(maxsize=64)
def _cached_table(grid: tuple[int, ...], width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A table on a device, which is copied there once and not in every forward pass."""
    return _table(grid, width).to(device, dtype)


def sincos_position(
    grid: Sequence[int], width: int, like: Tensor | None = None, offset: Tensor | None = None
) -> Tensor:
    """Positions of a grid, N x D float32; each axis has its own dimensions.

    Args:
        grid: patches along each axis.
        width: D; each axis gets an equal, even number of dimensions, and the first axis also the remainder.
        like: tensor with the device and dtype of the result.
        offset: B; index of the first position along the first axis, for chunks of longer clips (0 by default). The
            result is then B x N x D.

    Source: sin-cos embedding of MAE (arXiv 2111.06377), extended to any number of axes.
    """
    # torch.export traces with fake tensors and symbolic sizes, which must not enter the cache.
    if torch.compiler.is_compiling():
        table = _table(tuple(grid), width)
        table = table if like is None else table.to(like)
    else:
        device, dtype = (torch.device("cpu"), torch.float32) if like is None else (like.device, like.dtype)
        table = _cached_table(tuple(int(n) for n in grid), int(width), device, dtype)
    if offset is None:
        return table
    own = _widths(len(grid), width)[0]
    index = offset.to(table.device)[:, None] + torch.arange(grid[0], device=table.device)  # B x T
    positions = table.unflatten(0, (grid[0], -1)).repeat(len(offset), 1, 1, 1)  # B x T x (N / T) x D
    positions[..., :own] = _axis(index, own).to(table)[:, :, None]
    return positions.flatten(1, 2)  # B x N x D
