"""From the patches of a clip, or its log-mel frames, to one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.frontend import FrontEnd
from bridle_fairseq.utils.errors import InputError

POOLINGS = ("mean", "frequency", "class_token")


def pool_patches(out: EncoderOutput, grid: tuple[int, ...], padding_mask: Tensor | None, pooling: str) -> Tensor:
    """One float32 vector per clip from the encoder's output.

    Args:
        out: output for all patches.
        grid: patches along each axis; (T, F) for ``frequency``.
        padding_mask: B x N or None.
        pooling: ``mean`` of all valid patches -> B x D; ``frequency``: mean over time, frequency rows concatenated
            -> B x (F * D); ``class_token`` -> B x D.

    Raises:
        ValueError: an unknown pooling.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
    if pooling == "class_token":
        return out.class_token.float()
    x, padding = out.x.float(), None if padding_mask is None else padding_mask.unsqueeze(-1)
    if pooling == "frequency":  # B x T x F x D
        x, padding = x.unflatten(1, grid), None if padding is None else padding.unflatten(1, grid)
    # B x N x D -> B x D, or B x T x F x D -> B x (F * D)
    if padding is None:
        return x.mean(1).flatten(1)
    return (x.masked_fill(padding, 0.0).sum(1) / (~padding).sum(1).clamp(min=1)).flatten(1)


def pooled_width(front_end: FrontEnd, width: int, pooling: str) -> int:
    """Dimension of pooled features.

    Raises:
        InputError: pooling ``frequency`` for patches without frequency rows.
    """
    if pooling != "frequency":
        return width
    if front_end.rows is None:
        raise InputError("pooling is frequency, which is for sound; expected mean or class_token")
    return width * front_end.rows


def log_mel_deviation(fbank: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Mean and standard deviation over time of every mel bin: B x M x bins -> B x (2 * bins)."""
    clips = _unpadded(fbank, padding_mask)
    return torch.stack([torch.cat([clip.mean(0), clip.std(0, unbiased=False)]) for clip in clips])


def log_mel_segments(fbank: Tensor, padding_mask: Tensor | None, segments: int = 4) -> Tensor:
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
