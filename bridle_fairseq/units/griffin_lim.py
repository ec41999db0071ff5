"""From log-mel spectrograms to waveforms: an approximate inverse of the front end."""

from __future__ import annotations

import math
from types import ModuleType

import torch
from torch import Tensor

from bridle_fairseq.nn.fbank import PREEMPHASIS, LogMel
from bridle_fairseq.utils.optional import optional_import


def load_torchaudio() -> ModuleType:
    """The module ``torchaudio.functional``.

    Raises:
        InputError: it is not installed, or does not fit this torch.
    """
    with optional_import("Griffin-Lim needs torchaudio", "'bridle_fairseq[units]'"):
        from torchaudio import functional
    return functional


@torch.no_grad()
def waveform(log_mel: Tensor, analysis: LogMel, iterations: int = 60) -> Tensor:
    """A waveform with approximately this log-mel, by fast Griffin-Lim (Perraudin et al. 2013, torchaudio).

    The power spectrum is the least-squares solution for the mel filters, with pre-emphasis undone. Deterministic.

    Args:
        log_mel: B x M x mel bins, natural logarithm of power, as ``analysis`` computes it.
        analysis: the front end.
        iterations: number of iterations of Griffin-Lim.

    Returns:
        B x S, where S is M - 1 frame shifts plus a frame length.

    Raises:
        InputError: no torchaudio.
    """
    functional = load_torchaudio()
    power = (log_mel.float().exp() @ torch.linalg.pinv(analysis.filters)).clamp(min=0)
    angle = torch.arange(power.shape[-1], device=power.device) * (2 * math.pi / analysis.fft_length)
    gain = 1 + PREEMPHASIS**2 - 2 * PREEMPHASIS * angle.cos()  # |1 - 0.97 exp(-i w)|^2
    power = power / gain
    # torch centres frames on their positions and Kaldi begins them there, so pad by half a frame on both sides.
    padding = math.ceil(analysis.frame_length / 2 / analysis.frame_shift)
    power = torch.nn.functional.pad(power, (0, 0, padding, padding))
    length = (power.shape[1] - 1) * analysis.frame_shift
    samples = functional.griffinlim(
        power.transpose(1, 2),
        window=analysis.window,
        n_fft=analysis.fft_length,
        hop_length=analysis.frame_shift,
        win_length=analysis.frame_length,
        power=2.0,
        n_iter=iterations,
        momentum=0.99,
        length=length,
        rand_init=False,
    )
    start = padding * analysis.frame_shift - analysis.frame_length // 2
    return samples[:, start : start + (log_mel.shape[1] - 1) * analysis.frame_shift + analysis.frame_length]
