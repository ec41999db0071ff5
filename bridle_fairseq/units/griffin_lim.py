"""From log-mel to sound that can be listened to: the inverse of the front end, as far as there is one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bridle_fairseq.nn.fbank import PREEMPHASIS, LogMel
from bridle_fairseq.utils.optional import optional_import


def load_torchaudio() -> Any:
    """The module ``torchaudio.functional``.

    Raises:
        InputError: it is not installed, or does not fit this torch.
    """
    with optional_import("Griffin-Lim needs torchaudio", "'bridle_fairseq[units]'"):
        from torchaudio import functional
    return functional


@torch.no_grad()
def waveform(log_mel: Tensor, analysis: LogMel, iterations: int = 60) -> Tensor:
    """Sound with about this log-mel, its phases found by Griffin-Lim (Perraudin et al. 2013, as torchaudio has it).

    Power of the spectrum is the least-squares solution for the mel filters, and pre-emphasis is taken back.

    Args:
        log_mel: B x M x mel bins, natural logarithms of power, as ``analysis`` gives them.
        analysis: what was used to get them.
        iterations: of Griffin-Lim.

    Returns:
        B x S, S = (M - 1) frame shifts and a frame; deterministic.

    Raises:
        InputError: no torchaudio.
    """
    functional = load_torchaudio()
    power = (log_mel.float().exp() @ torch.linalg.pinv(analysis.filters)).clamp(min=0)
    angle = torch.arange(power.shape[-1], device=power.device) * (2 * math.pi / analysis.fft_length)
    gain = 1 + PREEMPHASIS**2 - 2 * PREEMPHASIS * angle.cos()  # |1 - 0.97 exp(-i w)|^2
    power = power / gain
    # torch's frames stand around their positions, Kaldi's begin there: half a frame of silence on both sides
    missing = math.ceil(analysis.frame_length / 2 / analysis.frame_shift)
    power = torch.nn.functional.pad(power, (0, 0, missing, missing))
    length = (power.shape[1] - 1) * analysis.frame_shift
    found = functional.griffinlim(
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
    start = missing * analysis.frame_shift - analysis.frame_length // 2
    return found[:, start : start + (log_mel.shape[1] - 1) * analysis.frame_shift + analysis.frame_length]
