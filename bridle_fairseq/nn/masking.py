"""Which patches the encoder sees and which it must predict."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Mask(NamedTuple):
    """A split of each clip's valid patches into visible and masked ones."""

    visible: Tensor  # B x V: indices of the visible patches, in ascending order; clips with fewer repeat padding places
    visible_padding: Tensor | None  # B x V, True where `visible` is no patch of the clip; None where all clips have V
    masked: Tensor  # B x N, True at patches to predict; never at padding


def random_mask(
    batch: int,
    num_patches: int,
    mask_ratio: float,
    *,
    padding_mask: Tensor | None = None,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Mask:
    """Hide ``mask_ratio`` of each clip's valid patches at random, and at least one; show at least one if there are two.

    Args:
        batch, num_patches: B, N.
        mask_ratio: share of hidden patches, 0 < ratio < 1.
        padding_mask: B x N, True = padding; padding is neither visible nor masked.
        device: where the mask is made (that of ``padding_mask`` if given).
        generator: source of randomness, on that device.
    """
    if padding_mask is not None:
        device = padding_mask.device
    score = torch.rand(batch, num_patches, device=device, generator=generator)
    if padding_mask is None:
        visible = score.argsort(1)[:, : _num_visible(num_patches, mask_ratio)].sort(1).values
        masked = torch.ones_like(score, dtype=torch.bool).scatter_(1, visible, False)
        return Mask(visible, None, masked)
    valid = (~padding_mask).sum(1)
    keep = (valid - (valid * mask_ratio).round().clamp(min=1)).clamp(min=1).long()
    width = int(keep.max())
    order = score.masked_fill(padding_mask, 2.0).argsort(1)[:, :width]
    padding = torch.arange(width, device=device)[None] >= keep[:, None]
    order = order.masked_fill(padding, num_patches).sort(1).values  # real places first, in order
    is_visible = torch.zeros(batch, num_patches + 1, dtype=torch.bool, device=device).scatter_(1, order, True)[:, :-1]
    return Mask(order.clamp(max=num_patches - 1), padding, ~is_visible & ~padding_mask)


class GridMask(NamedTuple):
    """The patches that are left of a two-dimensional grid when whole columns and rows of it are hidden."""

    visible: Tensor  # B x V: indices of the visible patches, time-major
    visible_padding: Tensor | None  # B x V, True where `visible` is no patch of the clip; None where all clips have V
    grid: tuple[int, int]  # columns (time) and rows (frequency) that are left; their product is V


def grid_mask(
    batch: int,
    grid: tuple[int, int],
    time_ratio: float,
    frequency_ratio: float,
    *,
    padding_mask: Tensor | None = None,
    device: torch.device | None = None,
) -> GridMask:
    """Hide shares of each clip's time steps and of its frequency rows at random, as :func:`random_mask` hides patches.

    Args:
        batch: B.
        grid: T and F.
        time_ratio, frequency_ratio: shares hidden, 0 <= ratio < 1; 0 hides nothing.
        padding_mask: B x (T * F), True = padding, of whole time steps.
        device: where the mask is made (that of ``padding_mask`` if given).

    Source: the 2-D masking with which Audio-MAE (arXiv 2207.06405, section 3) fine-tunes.
    """
    steps, rows = grid
    padded_steps = None if padding_mask is None else padding_mask.unflatten(1, grid)[:, :, 0]
    time, time_padding = _kept(batch, steps, time_ratio, padded_steps, device)
    frequency, _ = _kept(batch, rows, frequency_ratio, None, time.device)
    visible = (time[:, :, None] * rows + frequency[:, None, :]).flatten(1)
    if time_padding is not None:
        time_padding = time_padding.repeat_interleave(frequency.shape[1], dim=1)
    return GridMask(visible, time_padding, (time.shape[1], frequency.shape[1]))


def _kept(
    batch: int, places: int, ratio: float, padding: Tensor | None, device: torch.device | None
) -> tuple[Tensor, Tensor | None]:
    """Places of one axis that stay visible, B x V in ascending order, and which of them are padding."""
    if ratio > 0:
        mask = random_mask(batch, places, ratio, padding_mask=padding, device=device)
        return mask.visible, mask.visible_padding
    device = device if padding is None else padding.device
    return torch.arange(places, device=device).expand(batch, places), padding


def _num_visible(num_patches: int, mask_ratio: float) -> int:
    return max(1, num_patches - max(1, round(num_patches * mask_ratio)))
