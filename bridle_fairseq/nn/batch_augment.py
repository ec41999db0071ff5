"""Augmentation of batches in fine-tuning, on their device: mixup, SpecAugment, other voices, other rates, noise.

Random numbers come from torch's global generator. fairseq seeds it at every update, so a resumed run draws the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bridle_fairseq.nn.fbank import scaled_bins
from bridle_fairseq.nn.frontend import unit_range

NOISE_DECIBELS = (5.0, 40.0)  # below the clip


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
    positions = scaled_bins(bins, sample_rate, _factors(fbank, largest)).clamp(0, bins - 1)  # B x bins
    return _values_at(fbank, positions, 2)


def warp_time(fbank: Tensor, frame_padding: Tensor | None, largest: float) -> Tensor:
    """Play each clip slower or faster by a random factor, at its pitch, around a random frame.

    A clip keeps its length. What no longer fits is cut off; where frames are missing, the first or the last one is
    repeated.

    Args:
        fbank: B x M x mel bins, interpolated between frames; 0 at padding.
        frame_padding: B x M or None.
        largest: factors lie between 1 / (1 + largest) and 1 + largest, uniform in their logarithm.

    Source: time stretching (Salamon and Bello, arXiv 1608.04363, section II.C), here of the log-mel.
    """
    batch, frames, _ = fbank.shape
    last = torch.full((batch, 1), frames - 1, device=fbank.device)
    if frame_padding is not None:
        last = (~frame_padding).sum(1, keepdim=True) - 1
    fixed = last * torch.rand(batch, 1, device=fbank.device)
    frame = torch.arange(frames, device=fbank.device)
    positions = fixed + (frame - fixed) * _factors(fbank, largest)[:, None]  # B x M
    positions = torch.minimum(positions.clamp(min=0), last)
    warped = _values_at(fbank, positions, 1)
    return warped if frame_padding is None else warped.masked_fill(frame_padding[:, :, None], 0.0)


def add_noise(waveform: Tensor, padding_mask: Tensor | None, share: float) -> Tensor:
    """Add noise of a random colour, from white to brown, 5 to 40 dB below the clip.

    Args:
        waveform: B x S.
        padding_mask: B x S or None; the level of a clip is that of its valid samples.
        share: probability with which a clip gets noise.
    """
    batch, samples = waveform.shape
    device = waveform.device
    frequencies = torch.arange(samples // 2 + 1, device=device).clamp(min=1) / samples
    slope = torch.rand(batch, 1, device=device)  # amplitude ~ 1 / frequency ** slope; white: 0, brown: 1
    spectrum = torch.randn(batch, samples // 2 + 1, dtype=torch.complex64, device=device) * frequencies**-slope
    noise = torch.fft.irfft(spectrum, n=samples)
    least, most = NOISE_DECIBELS
    decibels = least + (most - least) * torch.rand(batch, 1, device=device)
    level = _rms(waveform, padding_mask) / _rms(noise, padding_mask).clamp(min=1e-12) * 10 ** (-decibels / 20)
    level = level * (torch.rand(batch, 1, device=device) < share)
    return waveform + (level * noise).to(waveform.dtype)


def _rms(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Root mean square of the valid samples: B x S -> B x 1, float32."""
    energy = x.float().square()
    if padding_mask is None:
        return energy.mean(1, keepdim=True).sqrt()
    valid = (~padding_mask).sum(1, keepdim=True).clamp(min=1)
    return (energy.masked_fill(padding_mask, 0.0).sum(1, keepdim=True) / valid).sqrt()


def _values_at(fbank: Tensor, positions: Tensor, axis: int) -> Tensor:
    """B x M x mel bins, interpolated linearly along an axis at positions within it, B x its size."""
    lower = positions.floor()
    weight = (positions - lower).to(fbank.dtype).unsqueeze(3 - axis)
    upper = (lower + 1).clamp(max=fbank.shape[axis] - 1)
    below, above = (fbank.gather(axis, at.long().unsqueeze(3 - axis).expand(fbank.shape)) for at in (lower, upper))
    return torch.lerp(below, above, weight)


def _factors(x: Tensor, largest: float) -> Tensor:
    """A random factor for each clip, between 1 / (1 + largest) and 1 + largest, uniform in its logarithm."""
    return (1 + largest) ** (2 * torch.rand(len(x), device=x.device) - 1)


def _span(sizes: Tensor, length: int, longest: int) -> Tensor:
    """B x length, True in one random span within the first ``sizes`` (B) positions of each row."""
    limit = (sizes // 2).clamp(max=longest)
    span = (torch.rand(sizes.shape, device=sizes.device) * (limit + 1)).long()
    start = (torch.rand(sizes.shape, device=sizes.device) * (sizes - span + 1)).long()
    position = torch.arange(length, device=sizes.device)
    return (position >= start[:, None]) & (position < (start + span)[:, None])
