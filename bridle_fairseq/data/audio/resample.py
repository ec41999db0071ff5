"""Resampling, by soxr: the one place that does it, for files and for waveforms in memory."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Of the filter that stands in for soxr: what it keeps of the lower band, zero crossings on either side, and a window
# of about 100 dB.
PASSED, CROSSINGS, KAISER_BETA = 0.945, 48, 10.0


def resampled_length(num_frames: int, from_rate: int, to_rate: int) -> int:
    """Samples at ``to_rate`` of a clip of so many frames at ``from_rate``: rounded, at least 1."""
    return max(1, (2 * num_frames * to_rate + from_rate) // (2 * from_rate))


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """S float32 samples at another rate; soxr may round the last sample away.

    Where soxr is not installed (an exported model asks for torch, numpy and safetensors only), a filter by torch does
    it, whose transition band is not soxr's: features then differ a little from those of training.
    """
    if from_rate == to_rate:
        return samples
    try:
        import soxr
    except ImportError:
        return resample_by_torch(torch.from_numpy(samples), from_rate, to_rate).numpy()
    return soxr.resample(samples, from_rate, to_rate, quality="HQ")


def resample_by_torch(samples: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """S float32 samples at another rate, by a sinc under a Kaiser window.

    Source: J. O. Smith, "Digital Audio Resampling Home Page", bandlimited interpolation.
    """
    divisor = math.gcd(from_rate, to_rate)
    down, up = from_rate // divisor, to_rate // divisor
    filters = _filters(down, up)
    reach = (filters.shape[1] - down) // 2
    length = resampled_length(len(samples), from_rate, to_rate)
    steps = -(-length // up)
    padded = functional.pad(samples.float(), (reach, max(0, steps * down + reach - len(samples))))
    found = functional.conv1d(padded[None, None], filters[:, None], stride=down)  # 1 x up x steps: samples by phase
    return found[0].T.flatten()[:length]


@lru_cache(maxsize=16)
def _filters(down: int, up: int) -> Tensor:
    """For each of ``up`` samples that come of ``down`` ones: up x (down + 2 reach) float32."""
    cutoff = PASSED * min(1.0, up / down)  # of the input's own band
    reach = math.ceil(CROSSINGS / cutoff)
    place = torch.arange(-reach, down + reach, dtype=torch.float64)  # of the input's samples
    time = place - torch.arange(up, dtype=torch.float64)[:, None] * (down / up)
    inside = (1 - (time * (cutoff / CROSSINGS)).square()).clamp(min=0)
    window = torch.special.i0(KAISER_BETA * inside.sqrt()) / torch.special.i0(torch.tensor(KAISER_BETA))
    window = window.masked_fill(inside == 0, 0.0)
    return (cutoff * torch.sinc(cutoff * time) * window).float()
