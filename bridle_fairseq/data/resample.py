"""Resampling, by soxr: the one place that does it, for files and for waveforms in memory."""

from __future__ import annotations

import numpy as np

from bridle_fairseq.errors import InputError


def resampled_length(num_frames: int, from_rate: int, to_rate: int) -> int:
    """Samples at ``to_rate`` of a clip of so many frames at ``from_rate``: rounded, at least 1."""
    return max(1, (2 * num_frames * to_rate + from_rate) // (2 * from_rate))


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """S float32 samples at another rate; soxr may round the last sample away.

    Raises:
        InputError: neither soxr nor torchaudio is installed. (torchaudio's filter is another one: where soxr is not,
            features differ a little from those of training.)
    """
    if from_rate == to_rate:
        return samples
    try:
        import soxr
    except ImportError:
        return _resampled_by_torchaudio(samples, from_rate, to_rate)
    return soxr.resample(samples, from_rate, to_rate, quality="HQ")


def _resampled_by_torchaudio(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    try:
        from torchaudio.functional import resample as by_torchaudio
    except (ImportError, OSError):  # OSError: a torchaudio that was built for another torch
        raise InputError(
            f"the sound has {from_rate} samples a second; expected {to_rate}, or soxr to resample it: pip install soxr"
        ) from None
    import torch

    return by_torchaudio(torch.from_numpy(samples), from_rate, to_rate).numpy()
