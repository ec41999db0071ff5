"""Which patches the encoder sees and which it must predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bridle_fairseq.nn.patch import gather_patches

BLOCK_EDGE = 4  # patches along each axis of the blocks that `block_mask` hides, about


class Mask(NamedTuple):
    """A split of each clip's valid patches into visible and masked ones."""

    visible: Tensor  # B x V: indices of the visible patches, in ascending order; clips with fewer repeat padding places
    visible_padding: Tensor | None  # B x V, True where `visible` is no patch of the clip; None where all clips have V
    masked: Tensor  # B x N, True at patches to predict; never at padding


class Targets(NamedTuple):
    """Those of a mask's hidden patches that are predicted."""

    places: Tensor  # B x Q: their places in the grid, in ascending order; clips with fewer repeat padding places
    padding: Tensor | None  # B x Q, True where `places` is no target; None where all clips have Q

    def of(self, x: Tensor) -> Tensor:
        """What stands at these places of B x N x ..., clip after clip: P x ..., P = B * Q."""
        return gather_patches(x.flatten(2), self.places).unflatten(2, x.shape[2:]).flatten(0, 1)

    @property
    def flat_padding(self) -> Tensor | None:
        """``padding`` of the rows of :meth:`of`, P."""
        return None if self.padding is None else self.padding.flatten()


def choose_targets(mask: Mask, share: float = 1.0, generator: torch.Generator | None = None) -> Targets:
    """A random ``share`` of each clip's masked patches, rounded, at least one; all of them by default.

    Q follows from the sizes of the mask alone: what is on a device is not waited for.

    Source: predicting a part of what is hidden, as CrossMAE (arXiv 2401.14391, section 3.3).
    """
    num_patches = mask.masked.shape[1]
    hidden = num_patches - mask.visible.shape[1]  # of a clip without padding; no other has more
    width = _share_of(torch.tensor([hidden]), share).tolist()[0]
    padding = None
    if mask.visible_padding is not None:
        keep = _share_of(mask.masked.sum(1), share)
        padding = torch.arange(width, device=keep.device)[None] >= keep[:, None]
    shape, device = mask.masked.shape, mask.masked.device
    score = torch.rand(shape, device=device, generator=generator) if share < 1 else torch.zeros(shape, device=device)
    index = score.masked_fill(~mask.masked, 2.0).argsort(dim=1, stable=True)[:, :width]
    if padding is not None:
        index = index.masked_fill(padding, num_patches)
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
    """Hide ``mask_ratio`` of each clip's valid patches at random, and at least one; show at least one if there are two.

    Args:
        batch: B.
        grid: patches along each axis, or N.
        mask_ratio: share of hidden patches, 0 < ratio < 1.
        padding_mask: B x N, True = padding; padding is neither visible nor masked.
        device: where the mask is made (that of ``padding_mask`` if given).
        generator: source of randomness, on that device.
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
    """Hide places of the grid in all steps of its first axis, time: ``mask_ratio`` of each clip's places, rounded.

    Arguments as in :func:`random_mask`; ``grid`` has two axes or more. A place counts where any of its patches is
    valid.

    Source: VideoMAE (arXiv 2203.12602, section 3.2).
    """
    steps, places = grid[0], math.prod(grid[1:])
    padded = None if padding_mask is None else padding_mask.unflatten(1, (steps, places)).all(1)
    tubes = random_mask(batch, places, mask_ratio, padding_mask=padded, device=device, generator=generator)
    first = places * torch.arange(steps, device=tubes.visible.device)[:, None]
    visible = (first + tubes.visible[:, None]).flatten(1)  # B x (steps * visible places), ascending
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
    """Hide as many patches as :func:`random_mask`, in rectangles (boxes) of random shape around random valid patches.

    Arguments as in :func:`random_mask`. All blocks of a clip grow at one pace until the number is reached: they may
    merge, and the outermost layer of one may be incomplete. Every hidden patch has hidden neighbours all the way to the
    middle of its block, if the clip's valid patches are a rectangle.

    Source: the block-wise masking of BEiT (arXiv 2106.08254, section 2.3), grown at once instead of drawn in turn.
    """
    device = device if padding_mask is None else padding_mask.device
    noise = torch.rand(batch, math.prod(grid), device=device, generator=generator)
    volume = BLOCK_EDGE ** len(grid)
    most = math.ceil((noise.shape[1] - _num_visible(noise.shape[1], mask_ratio)) / volume)
    middles = (noise if padding_mask is None else noise.masked_fill(padding_mask, 2.0)).argsort(1)[:, : max(1, most)]
    # How thick a layer of a block is along each axis: 1 to 3 patches, evenly in the logarithm: no two are equal.
    thick = 3 ** torch.rand(*middles.shape, len(grid), device=device, generator=generator)
    layer = _layers(middles, grid, thick)
    if padding_mask is not None:
        valid = (~padding_mask).sum(1)
        blocks = ((valid - _valid_visible(valid, mask_ratio)) / volume).ceil()
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
    """Hide as many patches as :func:`random_mask`, in whole lines: time steps and frequency rows (rows and columns).

    Arguments as in :func:`random_mask`. Lines of all axes are hidden in random order until the number is reached; of
    the last one, a random part. With three axes the lines are planes; an axis of one patch has none.

    Source: the 2-D masking of Audio-MAE (arXiv 2207.06405, section 3), with an exact number of patches.
    """
    device = device if padding_mask is None else padding_mask.device
    priority = torch.rand(batch, sum(grid), device=device, generator=generator)
    lines = priority.split(list(grid), 1)
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
    """The valid patches of the lowest scores (B x N) stay visible; their number follows from the ratio alone."""
    num_patches, device = score.shape[1], score.device
    if padding_mask is None:
        visible = score.argsort(1)[:, : _num_visible(num_patches, mask_ratio)].sort(1).values
        masked = torch.ones_like(score, dtype=torch.bool).scatter_(1, visible, False)
        return Mask(visible, None, masked)
    keep = _valid_visible((~padding_mask).sum(1), mask_ratio)
    # As many as a clip without padding shows; no other shows more.
    width = _valid_visible(torch.tensor([num_patches]), mask_ratio).tolist()[0]
    order = score.masked_fill(padding_mask, math.inf).argsort(1)[:, :width]
    padding = torch.arange(width, device=device)[None] >= keep[:, None]
    order = order.masked_fill(padding, num_patches).sort(1).values  # real places first, in order
    is_visible = torch.zeros(len(score), num_patches + 1, dtype=torch.bool, device=device)
    is_visible = is_visible.scatter_(1, order, True)[:, :-1]
    return Mask(order.clamp(max=num_patches - 1), padding, ~is_visible & ~padding_mask)


def _num_visible(num_patches: int, mask_ratio: float) -> int:
    return max(1, num_patches - max(1, round(num_patches * mask_ratio)))


def _valid_visible(valid: Tensor, mask_ratio: float) -> Tensor:
    """:func:`_num_visible` of each clip."""
    return (valid - (valid * mask_ratio).round().clamp(min=1)).clamp(min=1).long()


def _layers(middles: Tensor, grid: Sequence[int], thick: Tensor) -> Tensor:
    """In which layer of each block a patch lies, counted from the block's middle: B x blocks x N.

    Args:
        middles: B x blocks, patch numbers.
        grid: patches along each axis.
        thick: B x blocks x axes, patches that a layer is thick.
    """
    layer = torch.zeros(*middles.shape, *[1] * len(grid), device=middles.device)
    stride = math.prod(grid)
    for axis, size in enumerate(grid):
        stride //= size
        away = (torch.arange(size, device=middles.device) - (middles // stride % size)[:, :, None]).abs()
        shape = [-1 if at == axis else 1 for at in range(len(grid))]
        layer = torch.maximum(layer, (away / thick[:, :, axis, None]).view(*middles.shape, *shape))
    return layer.flatten(2)


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
