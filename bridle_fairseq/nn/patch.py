"""Splitting a grid of values into patches, for any number of axes and any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def grid_size(input_size: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    """Patches along each axis, including an incomplete last one."""
    return tuple(-(-size // patch) for size, patch in zip(input_size, patch_size, strict=True))


def patchify(x: Tensor, patch_size: Sequence[int]) -> Tensor:
    """Split ``x`` into flattened patches, the first axis slowest; an incomplete last patch is filled with zeros.

    Args:
        x: B x channels x size_1 x ... x size_n.
        patch_size: n sizes.

    Returns:
        B x N x (channels * prod(patch_size)).
    """
    sizes = x.shape[2:]
    grid = grid_size(sizes, patch_size)
    missing = [g * p - s for g, p, s in zip(grid, patch_size, sizes, strict=True)]
    if any(missing):
        x = functional.pad(x, [n for m in reversed(missing) for n in (0, m)])
    axes = len(sizes)
    split = [n for pair in zip(grid, patch_size, strict=True) for n in pair]
    x = x.reshape(*x.shape[:2], *split)  # B x channels x g1 x p1 x g2 x p2 ...
    order = [0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2)]
    return x.permute(order).reshape(x.shape[0], math.prod(grid), -1)  # B x N x patch_dim


def unpatchify(patches: Tensor, patch_size: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """The inverse of :func:`patchify`.

    Args:
        patches: B x N x (channels * prod(patch_size)).
        patch_size: n sizes.
        sizes: n sizes of the result; the filling of an incomplete last patch is cut off.

    Returns:
        B x channels x size_1 x ... x size_n.
    """
    grid, axes = grid_size(sizes, patch_size), len(sizes)
    x = patches.reshape(len(patches), *grid, -1, *patch_size)  # B x g1 x g2 ... x channels x p1 x p2 ...
    order = [0, 1 + axes, *(n for axis in range(axes) for n in (1 + axis, 2 + axes + axis))]
    # B x channels x g1 x p1 x g2 x p2 ... -> B x channels x (g1 * p1) x (g2 * p2) ...
    x = x.permute(order).reshape(len(patches), -1, *(g * p for g, p in zip(grid, patch_size, strict=True)))
    return x[tuple(slice(size) for size in (*x.shape[:2], *sizes))]


def patch_padding(padding: Tensor, patch_size: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Padding mask of patches: a patch without any valid value is padding.

    Args:
        padding: B x size_1 x ... x size_k, True = padding, for the first k axes (audio: frames; pixels: all axes).
        patch_size: size of a patch along all axes.
        grid: patches along all axes.

    Returns:
        B x N mask, the first axis slowest.
    """
    batch, axes = padding.shape[0], padding.dim() - 1
    missing = [g * p - s for g, p, s in zip(grid, patch_size, padding.shape[1:], strict=False)]
    padding = functional.pad(padding, [n for m in reversed(missing) for n in (0, m)], value=True)
    padding = padding.reshape(batch, *[n for pair in zip(grid[:axes], patch_size, strict=False) for n in pair])
    for axis in range(axes):  # B x g1 x p1 x g2 x p2 ... -> B x g1 x g2 ...
        padding = padding.all(2 + axis)
    padding = padding.reshape(batch, *grid[:axes], *[1] * (len(grid) - axes))
    return padding.expand(batch, *grid).flatten(1)  # B x N


def gather_patches(x: Tensor, index: Tensor) -> Tensor:
    """Take the rows ``index`` (B x V) of ``x`` (B x N x D): B x V x D."""
    return torch.gather(x, 1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
