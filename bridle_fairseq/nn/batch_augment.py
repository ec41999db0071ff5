"""Augmentation of batches in fine-tuning, on their device: mixup, SpecAugment and other lengths of the vocal tract.

Random numbers come from torch's global generator. fairseq seeds it at every update, so a resumed run draws the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bridle_fairseq.nn.fbank import scaled_bins
from bridle_fairseq.nn.frontend import unit_range


def mixup(
    source: Tensor, padding_mask: Tensor | None, target: Tensor, share: float, alpha: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Mix clips with another clip of the batch, and their targets with the same weight.

    Args:
        source: B x S waveforms, or B x 3 x sizes pixels.
        padding_mask: B x S (B x sizes) or None; a mixed clip is as long as the longer of the two.
        target: B x classes, a distribution over the classes.
        share: probability with which a clip is mixed.
        alpha: the weight of a clip is drawn from Beta(alpha, alpha).

    Returns:
        source, padding_mask and target after mixing.

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
    weight = weight.to(x.dtype).view(-1, *[1] * (x.dim() - 1))  # B -> B x 1 x ...
    return weight * x + (1 - weight) * x[partner]


def spec_augment(fbank: Tensor, frame_padding: Tensor | None, max_frames: int, max_bins: int) -> Tensor:
    """Mask one time span and one frequency span of each clip with 0, the mean of a normalized log-mel.

    Args:
        fbank: B x M x mel bins.
        frame_padding: B x M or None.
        max_frames, max_bins: longest span; lengths are uniform from 0 to this. At most half of the clip's frames or of
            the bins are masked, so that short clips are not lost.

    Source: SpecAugment (arXiv 1904.08779, section 2), with one mask per axis as in AST (arXiv 2104.01778).
    """
    batch, frames, bins = fbank.shape
    every = torch.full((batch,), frames, device=fbank.device)
    clip_frames = every if frame_padding is None else (~frame_padding).sum(1)
    masked = _span(clip_frames, frames, max_frames)[:, :, None]  # B x M x 1
    masked = masked | _span(torch.full_like(every, bins), bins, max_bins)[:, None, :]  # B x M x mel bins
    return fbank.masked_fill(masked, 0.0)


def warp_frequency(fbank: Tensor, sample_rate: int, largest: float) -> Tensor:
    """Scale each clip's frequency axis by a random factor, as a vocal tract of another length does.

    Args:
        fbank: B x M x mel bins, interpolated between bins.
        sample_rate: of the sound, in Hz.
        largest: factors lie between 1 / (1 + largest) and 1 + largest, uniform in their logarithm.

    Source: vocal tract length perturbation (Jaitly and Hinton 2013).
    """
    bins = fbank.shape[2]
    power = 2 * torch.rand(len(fbank), device=fbank.device) - 1
    positions = scaled_bins(bins, sample_rate, (1 + largest) ** power).clamp(0, bins - 1)  # B x bins
    lower = positions.floor().clamp(max=bins - 2)
    weight = (positions - lower).to(fbank.dtype)[:, None, :]
    lower = lower.long()[:, None, :].expand(fbank.shape)  # B x M x bins
    return torch.lerp(fbank.gather(2, lower), fbank.gather(2, lower + 1), weight)


def _span(sizes: Tensor, length: int, longest: int) -> Tensor:
    """B x length, True in one random span within the first ``sizes`` (B) positions of each row."""
    limit = (sizes // 2).clamp(max=longest)
    span = (torch.rand(sizes.shape, device=sizes.device) * (limit + 1)).long()
    start = (torch.rand(sizes.shape, device=sizes.device) * (sizes - span + 1)).long()
    position = torch.arange(length, device=sizes.device)
    return (position >= start[:, None]) & (position < (start + span)[:, None])
