"""Resampling of files and of waveforms in memory, by soxr."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bridle_fairseq.utils.errors import InputError

# The fallback filter: passband as a share of the lower Nyquist frequency, zero crossings per side, and a window with
# about 100 dB of stopband attenuation.
PASSED, CROSSINGS, KAISER_BETA = 0.945, 48, 10.0
LARGEST_FILTERS = 1 << 24  # numbers; 44.1 to 48 kHz has 39,000, and 12345 to 16000 Hz 8 million


def resampled_length(num_frames: int, from_rate: int, to_rate: int) -> int:
    """Length at ``to_rate`` of a clip of ``num_frames`` at ``from_rate``: rounded, at least 1."""
    return max(1, (2 * num_frames * to_rate + from_rate) // (2 * from_rate))


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """S float32 samples at another rate; soxr may round off the last sample.

    Without soxr (an exported model requires torch, numpy and safetensors only), torch resamples. Its transition band
    differs from soxr's, so features differ slightly from those of training.
    """
    if from_rate == to_rate:
        return samples
    try:
        import soxr
    except ImportError:
        return resample_by_torch(torch.from_numpy(samples), from_rate, to_rate).numpy()
    return soxr.resample(samples, from_rate, to_rate, quality="HQ")


def resample_by_torch(samples: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """S float32 samples at another rate, by a Kaiser-windowed sinc.

    Raises:
        InputError: rates without a common divisor, whose filters would not fit into memory.

    Source: J. O. Smith, "Digital Audio Resampling Home Page", bandlimited interpolation.
    """
    divisor = math.gcd(from_rate, to_rate)
    down, up = from_rate // divisor, to_rate // divisor
    if up * (down + 2 * CROSSINGS) > LARGEST_FILTERS:
        raise InputError(
            f"sound of {from_rate} Hz for a model of {to_rate} Hz; expected rates with a small ratio, or soxr "
            "installed: without it, this ratio takes filters of gigabytes"
        )
    filters = _filters(down, up)
    reach = (filters.shape[1] - down) // 2
    length = resampled_length(len(samples), from_rate, to_rate)
    steps = -(-length // up)
    padded = functional.pad(samples.float(), (reach, max(0, steps * down + reach - len(samples))))
    phases = functional.conv1d(padded[None, None], filters[:, None], stride=down)  # 1 x up x steps
    return phases[0].T.flatten()[:length]


@lru_cache(maxsize=16)
def _filters(down: int, up: int) -> Tensor:
    """The polyphase filters, which make ``up`` samples out of ``down``: up x (down + 2 reach) float32."""
    cutoff = PASSED * min(1.0, up / down)  # as a share of the input's Nyquist frequency
    reach = math.ceil(CROSSINGS / cutoff)
    position = torch.arange(-reach, down + reach, dtype=torch.float64)  # in samples of the input
    time = position - torch.arange(up, dtype=torch.float64)[:, None] * (down / up)
    inside = (1 - (time * (cutoff / CROSSINGS)).square()).clamp(min=0)
    window = torch.special.i0(KAISER_BETA * inside.sqrt()) / torch.special.i0(torch.tensor(KAISER_BETA))
    window = window.masked_fill(inside == 0, 0.0)
    return (cutoff * torch.sinc(cutoff * time) * window).float()
