"""From the patches of a clip, or its log-mel frames, to one vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.frontend import FrontEnd
from bridle_fairseq.nn.pooling_kinds import OF_PIXELS, OF_SOUND, POOLINGS, REGIONS, SEGMENTS, VECTORS
from bridle_fairseq.utils.errors import InputError


def pool_patches(
    out: EncoderOutput,
    grid: tuple[int, ...],
    padding_mask: Tensor | None,
    pooling: str,
    offset: Tensor | None = None,
    clip_steps: Tensor | None = None,
) -> Tensor:
    """One float32 vector per clip from the encoder's output.

    Args:
        out: output for all patches.
        grid: patches along each axis; (T, F) for poolings that keep frequency rows apart.
        padding_mask: B x N or None.
        pooling: ``mean`` of all valid patches -> B x D; ``frequency``: mean over time, frequency rows concatenated
            -> B x (F * D); ``class_token`` -> B x D; ``statistics``: mean, then standard deviation of all valid patches
            -> B x (2 * D); ``frequency_statistics``: means over time of all rows, then their standard deviations
            -> B x (2 * F * D); ``segments``: ``frequency`` of each quarter of the valid time steps -> B x (4 * F * D);
            ``regions`` of images and video: the mean of each part of the valid grid, 4 x 4, or 4 x 2 x 2 (time, height,
            width) -> B x (16 * D). Standard deviations are those of the population.
        offset: B; chunks of longer clips: time steps of the clip before each chunk; None: 0.
        clip_steps: B; chunks of longer clips: time steps of the whole clip; None: each clip is whole. ``segments`` of a
            chunk are its part of the clip's, see :func:`merge_chunks`.

    Raises:
        ValueError: an unknown pooling.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
    if pooling == "class_token":
        return out.class_token.float()
    summary, by_row, _ = POOLINGS[pooling]
    x, padding = out.x.float(), None if padding_mask is None else padding_mask.unsqueeze(-1)
    if summary == "regions":
        x = x.unflatten(1, grid)  # B x H x W x D, or B x T x H x W x D
        return _region_means(x, None if padding is None else padding.unflatten(1, grid))
    if by_row:  # B x T x F x D
        x, padding = x.unflatten(1, grid), None if padding is None else padding.unflatten(1, grid)
    if summary == "segments":
        return _segment_means(x, padding, offset, clip_steps)
    mean = _mean(x, padding)  # B x N x D -> B x D, or B x T x F x D -> B x F x D
    if summary == "mean":
        return mean.flatten(1)
    return torch.cat([mean.flatten(1), _deviation(x, mean, padding).flatten(1)], dim=1)


def _mean(x: Tensor, padding: Tensor | None) -> Tensor:
    """Mean over the first axis after the batch."""
    if padding is None:
        return x.mean(1)
    return x.masked_fill(padding, 0.0).sum(1) / (~padding).sum(1).clamp(min=1)


def _deviation(x: Tensor, mean: Tensor, padding: Tensor | None) -> Tensor:
    """Standard deviation over the first axis after the batch. Where it is 0, so is its gradient."""
    if padding is not None:  # before the difference, so that no gradient depends on what stands at padding
        x = x.masked_fill(padding, 0.0)
    variance = _mean((x - mean.unsqueeze(1)).square(), padding)
    varies = variance > 0
    return variance.where(varies, 1.0).sqrt().where(varies, 0.0)


def _segment_means(x: Tensor, padding: Tensor | None, offset: Tensor | None, clip_steps: Tensor | None) -> Tensor:
    """Mean of each row in each segment, by the rule of :func:`log_mel_segments`: B x T x F x D -> B x (4 * F * D)."""
    valid = x.new_ones(x.shape[:2], dtype=torch.bool) if padding is None else ~padding[:, :, 0, 0]  # B x T
    steps = valid.sum(1) if clip_steps is None else clip_steps  # B
    starts, ends = _parts(steps, SEGMENTS)
    time = torch.arange(x.shape[1], device=x.device) + (0 if offset is None else offset[:, None])  # T, or B x T
    means = []
    for start, end in zip(starts.unbind(1), ends.unbind(1), strict=True):
        inside = valid & (time >= start[:, None]) & (time < end[:, None])  # B x T
        total = x.masked_fill(~inside[:, :, None, None], 0.0).sum(1)  # B x F x D
        means.append((total / (end - start)[:, None, None]).flatten(1))
    return torch.cat(means, dim=1)


def _parts(steps: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Start and end of equal parts of so many steps, at least one step each: B -> B x number, twice."""
    edges = (steps[:, None] * torch.arange(number + 1, device=steps.device) / number).round().long()
    starts = torch.minimum(edges[:, :-1], steps[:, None] - 1)
    return starts, torch.maximum(starts + 1, edges[:, 1:])


def _region_means(x: Tensor, padding: Tensor | None) -> Tensor:
    """Mean of each part of the valid grid, a box from its first corner: B x *grid x D -> B x (parts * D)."""
    valid = x.new_ones(x.shape[:-1], dtype=torch.bool) if padding is None else ~padding[..., 0]
    x = x.masked_fill(~valid[..., None], 0.0)
    for axis, number in enumerate(REGIONS[x.dim() - 2], 1):  # of a box, the mean is that of each axis in turn
        steps = valid.movedim(axis, 1).flatten(2).any(2).sum(1)  # B
        place = torch.arange(x.shape[axis], device=x.device)  # n
        shape = [len(x), *[1] * (axis - 1), -1, *[1] * (x.dim() - 1 - axis)]  # B x n among the axes of x
        means = []
        for start, end in zip(*(edge.unbind(1) for edge in _parts(steps, number)), strict=True):
            inside = (place >= start[:, None]) & (place < end[:, None])  # B x n
            means.append((x * (inside / (end - start)[:, None]).view(shape)).sum(axis))
        x = torch.stack(means, axis)
    return x.flatten(1)


def merge_chunks(pooling: str, vectors: Sequence[np.ndarray], counts: Sequence[int]) -> np.ndarray:
    """A clip's pooled vector, float32, from those of its chunks: exactly that of all patches that count.

    Args:
        pooling: of the vectors.
        vectors: of :func:`pool_patches`, one for each chunk.
        counts: number of patches that count in each chunk.
    """
    summary, weights = POOLINGS[pooling].summary, np.array(counts, dtype=np.float64)
    if summary == "segments":  # each chunk has divided its sums by the lengths of the clip's segments
        return np.array(vectors, dtype=np.float64).sum(0).astype(np.float32)
    if summary == "mean":
        return np.average(vectors, axis=0, weights=weights).astype(np.float32)
    means, deviations = np.split(np.array(vectors, dtype=np.float64), 2, axis=1)  # chunks x width each
    mean = np.average(means, axis=0, weights=weights)
    variance = np.average(deviations**2 + (means - mean) ** 2, axis=0, weights=weights)
    return np.concatenate([mean, np.sqrt(variance)]).astype(np.float32)


def pooled_width(front_end: FrontEnd, width: int, pooling: str) -> int:
    """Dimension of pooled features.

    Raises:
        InputError: an unknown pooling, or one that is not for this modality.
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling is {pooling!r}; expected one of {', '.join(POOLINGS)}")
    summary, by_row, _ = POOLINGS[pooling]
    possible = OF_PIXELS if front_end.rows is None else OF_SOUND
    if pooling not in possible:
        kind = POOLINGS[pooling].of
        raise InputError(f"pooling is {pooling}, which is for {kind}; expected one of {', '.join(possible)}")
    return VECTORS[summary] * width * (front_end.rows if by_row and front_end.rows else 1)


def log_mel_deviation(fbank: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Mean and standard deviation over time of every mel bin: B x M x bins -> B x (2 * bins)."""
    clips = _unpadded(fbank, padding_mask)
    return torch.stack([torch.cat([clip.mean(0), clip.std(0, unbiased=False)]) for clip in clips])


def log_mel_segments(fbank: Tensor, padding_mask: Tensor | None, segments: int = SEGMENTS) -> Tensor:
    """Mean of every mel bin in each of ``segments`` equal time segments: B x M x bins -> B x (segments * bins)."""
    rows = []
    for clip in _unpadded(fbank, padding_mask):
        edges = [round(len(clip) * index / segments) for index in range(segments + 1)]
        # a clip with fewer frames than segments uses some frames twice
        starts = [min(edge, len(clip) - 1) for edge in edges[:-1]]
        rows.append(torch.cat([clip[a : max(a + 1, b)].mean(0) for a, b in zip(starts, edges[1:], strict=True)]))
    return torch.stack(rows)


def _unpadded(fbank: Tensor, padding_mask: Tensor | None) -> Sequence[Tensor]:
    """The valid frames of each clip, M x bins."""
    if padding_mask is None:
        return list(fbank)
    return [clip[~padding] for clip, padding in zip(fbank, padding_mask, strict=True)]
