"""Masking: which patches the encoder sees, and which ones are predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bridle_fairseq.nn.patch import gather_patches

BLOCK_EDGE = 4  # a block of `block_mask` has about this many patches along each axis


class Mask(NamedTuple):
    """A split of each clip's valid patches into visible and masked ones."""

    visible: Tensor  # B x V: indices of the visible patches, ascending; rows are padded with any valid index
    visible_padding: Tensor | None  # B x V, True where `visible` is padding; None if all clips have V visible patches
    masked: Tensor  # B x N, True at masked patches; False at padding


class Targets(NamedTuple):
    """The masked patches that are predicted."""

    places: Tensor  # B x Q: indices of the targets, ascending; rows are padded with any valid index
    padding: Tensor | None  # B x Q, True where `places` is padding; None if all clips have Q targets

    def of(self, x: Tensor) -> Tensor:
        """Values at the targets, clip after clip: B x N x ... -> P x ... with P = B * Q."""
        return gather_patches(x.flatten(2), self.places).unflatten(2, x.shape[2:]).flatten(0, 1)

    @property
    def flat_padding(self) -> Tensor | None:
        """``padding`` for the rows of :meth:`of`, P."""
        return None if self.padding is None else self.padding.flatten()


def choose_targets(mask: Mask, share: float = 1.0, generator: torch.Generator | None = None) -> Targets:
    """Choose a random ``share`` of each clip's masked patches, rounded, at least one; all of them by default.

    Q depends on the shapes of the mask only, so no device synchronization is needed.

    Source: partial prediction of CrossMAE (arXiv 2401.14391, section 3.3).
    """
    num_patches = mask.masked.shape[1]
    most = num_patches - mask.visible.shape[1]  # masked patches of a clip without padding; other clips have fewer
    width = _share_of(torch.tensor([most]), share).tolist()[0]  # Q, in float32 as `keep` below
    padding = None
    if mask.visible_padding is not None:
        keep = _share_of(mask.masked.sum(1), share)  # B
        padding = torch.arange(width, device=keep.device)[None] >= keep[:, None]  # B x Q
    shape, device = mask.masked.shape, mask.masked.device
    score = torch.rand(shape, device=device, generator=generator) if share < 1 else torch.zeros(shape, device=device)
    score = score.masked_fill(~mask.masked, 2.0)  # above any rand(), so sorted last
    index = score.argsort(dim=1, stable=True)[:, :width]  # B x N -> B x Q
    if padding is not None:
        index = index.masked_fill(padding, num_patches)  # N sorts last; then clamped to a valid index
    return Targets(index.sort(1).values.clamp(max=num_patches - 1), padding)


def _share_of(count: Tensor, share: float) -> Tensor:
    return torch.minimum(count, (count * share).round().clamp(min=1).long())


def random_mask(
    batch: int,
    grid: int | Sequence[int],
    mask_ratio: float,
    *,
    padding_mask: Tensor | None = None,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Mask:
    """Mask a fraction ``mask_ratio`` of each clip's valid patches, chosen at random.

    At least one patch is visible; with two or more patches, at least one is masked.

    Args:
        batch: B.
        grid: patches along each axis, or N.
        mask_ratio: fraction of masked patches, 0 < ratio < 1.
        padding_mask: B x N, True = padding; padding is neither visible nor masked.
        device: device of the mask (that of ``padding_mask`` if given).
        generator: random number generator on that device.
    """
    device = device if padding_mask is None else padding_mask.device
    num_patches = grid if isinstance(grid, int) else math.prod(grid)
    score = torch.rand(batch, num_patches, device=device, generator=generator)
    return _show_lowest(score, mask_ratio, padding_mask)


def tube_mask(
    batch: int,
    grid: Sequence[int],
    mask_ratio: float,
    *,
    padding_mask: Tensor | None = None,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Mask:
    """Mask the same positions in all time steps: a fraction ``mask_ratio`` of each clip's positions, rounded.

    Arguments as in :func:`random_mask`; ``grid`` has two axes or more, time first. A position is valid if any of its
    patches is.

    Source: VideoMAE (arXiv 2203.12602, section 3.2).
    """
    steps, places = grid[0], math.prod(grid[1:])
    padded = None if padding_mask is None else padding_mask.unflatten(1, (steps, places)).all(1)
    tubes = random_mask(batch, places, mask_ratio, padding_mask=padded, device=device, generator=generator)
    first = places * torch.arange(steps, device=tubes.visible.device)[:, None]
    visible = (first + tubes.visible[:, None]).flatten(1)  # B x (steps * visible positions), ascending
    masked = tubes.masked.repeat(1, steps)
    if padding_mask is None or tubes.visible_padding is None:
        return Mask(visible, None, masked)
    visible_padding = padding_mask.gather(1, visible) | tubes.visible_padding.repeat(1, steps)
    return Mask(visible, visible_padding, masked & ~padding_mask)


def block_mask(
    batch: int,
    grid: Sequence[int],
    mask_ratio: float,
    *,
    padding_mask: Tensor | None = None,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Mask:
    """Mask as many patches as :func:`random_mask`, in blocks (rectangles, boxes) of random shape and position.

    Arguments as in :func:`random_mask`. All blocks of a clip grow at the same rate until the number is reached. Blocks
    can overlap, and their outermost layer can be incomplete. If the valid patches form a rectangle, blocks have no
    holes.

    Source: block-wise masking of BEiT (arXiv 2106.08254, section 2.3), with blocks grown together and not one by one.
    """
    device = device if padding_mask is None else padding_mask.device
    noise = torch.rand(batch, math.prod(grid), device=device, generator=generator)
    patches_per_block = BLOCK_EDGE ** len(grid)
    most = math.ceil((noise.shape[1] - _num_visible(noise.shape[1], mask_ratio)) / patches_per_block)
    if padding_mask is not None:
        noise = noise.masked_fill(padding_mask, 2.0)  # above any rand(), so sorted last
    middles = noise.argsort(1)[:, : max(1, most)]  # B x blocks
    # Thickness of a block's layers along each axis: log-uniform from 1 to 3 patches, so that there are no ties.
    thick = 3 ** torch.rand(*middles.shape, len(grid), device=device, generator=generator)
    layer = _layers(middles, grid, thick)  # B x blocks x N
    if padding_mask is not None:
        valid = (~padding_mask).sum(1)
        blocks = ((valid - _visible_per_clip(valid, mask_ratio)) / patches_per_block).ceil()  # B
        unused = torch.arange(layer.shape[1], device=device) >= blocks[:, None]
        layer = layer.masked_fill(unused[:, :, None], math.inf)
    return _show_lowest(-layer.amin(1), mask_ratio, padding_mask)


def line_mask(
    batch: int,
    grid: Sequence[int],
    mask_ratio: float,
    *,
    padding_mask: Tensor | None = None,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Mask:
    """Mask as many patches as :func:`random_mask`, in whole lines: time steps and frequency rows (rows and columns).

    Arguments as in :func:`random_mask`. Lines of all axes are masked in random order until the number is reached; the
    last one is masked in part, at random. With three axes, lines are planes. An axis of one patch is not masked.

    Source: 2-D masking of Audio-MAE (arXiv 2207.06405, section 3), with an exact number of patches.
    """
    device = device if padding_mask is None else padding_mask.device
    priority = torch.rand(batch, sum(grid), device=device, generator=generator)
    lines = priority.split(list(grid), 1)
    # Rank of each line. The line of an axis of one patch ranks lowest and stays visible: its value is below any rand().
    rank = torch.cat([line - 2.0 if line.shape[1] == 1 else line for line in lines], 1).argsort(1).argsort(1)
    score = torch.zeros(batch, *grid, dtype=torch.long, device=device)
    for axis, ranks in enumerate(rank.split(list(grid), 1)):
        score = torch.maximum(score, ranks.view(batch, *(-1 if at == axis else 1 for at in range(len(grid)))))
    noise = torch.rand(batch, math.prod(grid), device=device, generator=generator)
    return _show_lowest(score.flatten(1) + noise, mask_ratio, padding_mask)


MASKINGS: dict[str, Callable[..., Mask]] = {
    "random": random_mask,
    "tube": tube_mask,
    "block": block_mask,
    "lines": line_mask,
}


def _show_lowest(score: Tensor, mask_ratio: float, padding_mask: Tensor | None) -> Mask:
    """Make the valid patches with the lowest scores (B x N) visible; their number depends on the ratio only."""
    num_patches, device = score.shape[1], score.device
    if padding_mask is None:
        visible = score.argsort(1)[:, : _num_visible(num_patches, mask_ratio)].sort(1).values
        masked = torch.ones_like(score, dtype=torch.bool).scatter_(1, visible, False)
        return Mask(visible, None, masked)
    keep = _visible_per_clip((~padding_mask).sum(1), mask_ratio)
    # V is the number of visible patches of a clip without padding, in float32 as `keep`; other clips have fewer.
    width = _visible_per_clip(torch.tensor([num_patches]), mask_ratio).tolist()[0]
    order = score.masked_fill(padding_mask, math.inf).argsort(1)[:, :width]
    padding = torch.arange(width, device=device)[None] >= keep[:, None]  # B x V
    order = order.masked_fill(padding, num_patches).sort(1).values  # index N is a scratch slot for padding
    is_visible = torch.zeros(len(score), num_patches + 1, dtype=torch.bool, device=device)
    is_visible = is_visible.scatter_(1, order, True)[:, :-1]
    return Mask(order.clamp(max=num_patches - 1), padding, ~is_visible & ~padding_mask)


def _num_visible(num_patches: int, mask_ratio: float) -> int:
    return max(1, num_patches - max(1, round(num_patches * mask_ratio)))


def _visible_per_clip(valid: Tensor, mask_ratio: float) -> Tensor:
    """:func:`_num_visible` for each clip, B."""
    return (valid - (valid * mask_ratio).round().clamp(min=1)).clamp(min=1).long()


def _layers(middles: Tensor, grid: Sequence[int], thick: Tensor) -> Tensor:
    """Layer of each block in which a patch lies, counted from the middle of the block: B x blocks x N.

    Args:
        middles: B x blocks, patch indices.
        grid: patches along each axis.
        thick: B x blocks x axes, thickness of a layer in patches.
    """
    layer = torch.zeros(*middles.shape, *[1] * len(grid), device=middles.device)
    stride = math.prod(grid)
    for axis, size in enumerate(grid):
        stride //= size
        # B x blocks x size: distance from the middle along this axis
        away = (torch.arange(size, device=middles.device) - (middles // stride % size)[:, :, None]).abs()
        shape = [-1 if at == axis else 1 for at in range(len(grid))]
        layer = torch.maximum(layer, (away / thick[:, :, axis, None]).view(*middles.shape, *shape))
    return layer.flatten(2)


class GridMask(NamedTuple):
    """The visible patches of a two-dimensional grid after masking whole time steps and frequency rows."""

    visible: Tensor  # B x V: indices of the visible patches, time-major
    visible_padding: Tensor | None  # B x V, True where `visible` is padding; None if all clips have V visible patches
    grid: tuple[int, int]  # visible time steps and frequency rows; their product is V


def grid_mask(
    batch: int,
    grid: tuple[int, int],
    time_ratio: float,
    frequency_ratio: float,
    *,
    padding_mask: Tensor | None = None,
    device: torch.device | None = None,
) -> GridMask:
    """Mask random time steps and random frequency rows of each clip, by the rule of :func:`random_mask`.

    Args:
        batch: B.
        grid: T and F.
        time_ratio, frequency_ratio: fractions to mask, 0 <= ratio < 1; 0 masks nothing.
        padding_mask: B x (T * F), True = padding, of whole time steps.
        device: device of the mask (that of ``padding_mask`` if given).

    Source: 2-D masking in the fine-tuning of Audio-MAE (arXiv 2207.06405, section 3).
    """
    steps, rows = grid
    padded_steps = None if padding_mask is None else padding_mask.unflatten(1, grid)[:, :, 0]
    time, time_padding = _kept(batch, steps, time_ratio, padded_steps, device)
    frequency, _ = _kept(batch, rows, frequency_ratio, None, time.device)
    visible = (time[:, :, None] * rows + frequency[:, None, :]).flatten(1)  # B x T' x F' -> B x V
    if time_padding is not None:
        time_padding = time_padding.repeat_interleave(frequency.shape[1], dim=1)
    return GridMask(visible, time_padding, (time.shape[1], frequency.shape[1]))


def _kept(
    batch: int, places: int, ratio: float, padding: Tensor | None, device: torch.device | None
) -> tuple[Tensor, Tensor | None]:
    """Visible positions of one axis, B x V in ascending order, and their padding mask."""
    if ratio > 0:
        mask = random_mask(batch, places, ratio, padding_mask=padding, device=device)
        return mask.visible, mask.visible_padding
    device = device if padding is None else padding.device
    return torch.arange(places, device=device).expand(batch, places), padding
