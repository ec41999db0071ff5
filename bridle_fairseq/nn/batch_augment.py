"""Augmentation of labelled batches while fine-tuning, on their device: mixup, and SpecAugment.

Random numbers come from torch's global generator: fairseq seeds it at every update, so a resumed run draws the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bridle_fairseq.nn.frontend import unit_range


def mixup(
    source: Tensor, padding_mask: Tensor | None, target: Tensor, share: float, alpha: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Mix a share of the clips with another clip of the batch, and their labels alike; returns what it was given.

    Args:
        source: B x S waveforms, or B x 3 x sizes pixels.
        padding_mask: B x S (B x sizes) or None; a mixed clip is as long as the longer of the two.
        target: B x classes, shares of each class.
        share: probability with which a clip is mixed.
        alpha: the first clip's weight follows Beta(alpha, alpha).

    Source: mixup (arXiv 1710.09412) of waveforms as in AST (arXiv 2104.01778), which uses alpha 10 and share 0.5.
    """
    batch = len(source)
    if batch < 2:
        return source, padding_mask, target
    offset = torch.randint(1, batch, (), device=source.device)
    partner = (torch.arange(batch, device=source.device) + offset) % batch
    mixed = torch.rand(batch, device=source.device) < share
    concentration = torch.full((batch,), alpha, device=source.device)
    weight = torch.distributions.Beta(concentration, concentration).sample()
    weight = torch.where(mixed, weight, 1.0)
    if source.dim() > 2:
        source = unit_range(source)
    if padding_mask is not None:
        source = source.masked_fill(padding_mask if source.dim() == 2 else padding_mask.unsqueeze(1), 0.0)
        padding_mask = padding_mask & (padding_mask[partner] | ~mixed.view(-1, *[1] * (padding_mask.dim() - 1)))
    return _mix(source, partner, weight), padding_mask, _mix(target, partner, weight)


def _mix(x: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    weight = weight.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
    return weight * x + (1 - weight) * x[partner]


def spec_augment(fbank: Tensor, frame_padding: Tensor | None, max_frames: int, max_bins: int) -> Tensor:
    """Hide one stretch of time and one of frequency in each clip: they become 0, the mean of a normalised log-mel.

    Args:
        fbank: B x M x mel bins.
        frame_padding: B x M or None.
        max_frames, max_bins: the longest stretch; its length is drawn evenly from 0 to there. Never more than half of
            a clip or of its bins, so that something is left of a short clip.

    Source: SpecAugment (arXiv 1904.08779, section 2), with one mask on either axis as in AST (arXiv 2104.01778).
    """
    batch, frames, bins = fbank.shape
    every = torch.full((batch,), frames, device=fbank.device)
    clip_frames = every if frame_padding is None else (~frame_padding).sum(1)
    hidden = _stretch(clip_frames, frames, max_frames)[:, :, None]
    hidden = hidden | _stretch(torch.full_like(every, bins), bins, max_bins)[:, None, :]
    return fbank.masked_fill(hidden, 0.0)


def _stretch(sizes: Tensor, places: int, longest: int) -> Tensor:
    """B x places, True in one random stretch of the first ``sizes`` (B) places of each row."""
    limit = (sizes // 2).clamp(max=longest)
    length = (torch.rand(sizes.shape, device=sizes.device) * (limit + 1)).long()
    start = (torch.rand(sizes.shape, device=sizes.device) * (sizes - length + 1)).long()
    place = torch.arange(places, device=sizes.device)
    return (place >= start[:, None]) & (place < (start + length)[:, None])
