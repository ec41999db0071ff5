"""From the patches of a clip, or from its log-mel frames, to one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.frontend import FrontEnd
from bridle_fairseq.utils.errors import InputError

POOLINGS = ("mean", "frequency", "class_token")


def pool_patches(out: EncoderOutput, grid: tuple[int, ...], padding_mask: Tensor | None, pooling: str) -> Tensor:
    """One vector of what the encoder made of a clip, in float32.

    Args:
        out: of all patches.
        grid: patches along each axis; (T, F) for ``frequency``.
        padding_mask: B x N or None; patches that are padding do not count.
        pooling: ``mean`` of all patches -> B x D; ``frequency``: mean over time, the rows of the spectrogram kept
            apart -> B x (F * D); ``class_token`` -> B x D.

    Raises:
        ValueError: another pooling.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
    if pooling == "class_token":
        return out.class_token.float()
    x, padding = out.x.float(), None if padding_mask is None else padding_mask.unsqueeze(-1)
    if pooling == "frequency":  # B x T x F x D
        x, padding = x.unflatten(1, grid), None if padding is None else padding.unflatten(1, grid)
    if padding is None:
        return x.mean(1).flatten(1)
    return (x.masked_fill(padding, 0.0).sum(1) / (~padding).sum(1).clamp(min=1)).flatten(1)


def pooled_width(front_end: FrontEnd, width: int, pooling: str) -> int:
    """Values of a pooled vector of features of this width.

    Raises:
        InputError: rows of patches are to be kept apart that have no meaning of their own.
    """
    if pooling != "frequency":
        return width
    if front_end.rows is None:
        raise InputError("pooling is frequency, which is for sound; expected mean or class_token")
    return width * front_end.rows


def log_mel_deviation(fbank: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Mean and deviation over time of every mel bin: B x M x bins -> B x (2 * bins)."""
    clips = _unpadded(fbank, padding_mask)
    return torch.stack([torch.cat([clip.mean(0), clip.std(0, unbiased=False)]) for clip in clips])


def log_mel_segments(fbank: Tensor, padding_mask: Tensor | None, segments: int = 4) -> Tensor:
    """Mean of every mel bin in each of a few equal stretches of time: B x M x bins -> B x (segments * bins)."""
    rows = []
    for clip in _unpadded(fbank, padding_mask):
        edges = [round(len(clip) * index / segments) for index in range(segments + 1)]
        # a clip of fewer frames than segments uses some frames twice
        starts = [min(edge, len(clip) - 1) for edge in edges[:-1]]
        rows.append(torch.cat([clip[a : max(a + 1, b)].mean(0) for a, b in zip(starts, edges[1:], strict=True)]))
    return torch.stack(rows)


def _unpadded(fbank: Tensor, padding_mask: Tensor | None) -> Sequence[Tensor]:
    if padding_mask is None:
        return list(fbank)
    return [clip[~padding] for clip, padding in zip(fbank, padding_mask, strict=True)]
