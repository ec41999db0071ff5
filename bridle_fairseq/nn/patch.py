"""Cutting a grid of values into patches, for any number of axes and any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def grid_size(input_size: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    """Patches along each axis; an incomplete last patch counts, so that no part of the input is lost."""
    return tuple(math.ceil(size / patch) for size, patch in zip(input_size, patch_size, strict=True))


def patchify(x: Tensor, patch_size: Sequence[int]) -> Tensor:
    """Cut ``x`` into flattened patches, the first axis slowest; an incomplete last patch is filled with zeros.

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
    return x.permute(order).reshape(x.shape[0], math.prod(grid), -1)


def patch_padding(frame_padding: Tensor, patch_frames: int, patches_per_step: int) -> Tensor:
    """Which patches are padding, when the first axis is time: those without a single valid frame.

    Args:
        frame_padding: B x M, True = padding.
        patch_frames: frames of a patch.
        patches_per_step: patches of one time step (F).

    Returns:
        B x (T * F) mask, T = ceil(M / patch_frames), time-major.
    """
    missing = -frame_padding.shape[1] % patch_frames
    frame_padding = functional.pad(frame_padding, (0, missing), value=True)
    steps = frame_padding.unflatten(1, (-1, patch_frames)).all(-1)
    return steps.repeat_interleave(patches_per_step, dim=1)


def gather_patches(x: Tensor, index: Tensor) -> Tensor:
    """Take the rows ``index`` (B x V) of ``x`` (B x N x D): B x V x D."""
    return torch.gather(x, 1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
