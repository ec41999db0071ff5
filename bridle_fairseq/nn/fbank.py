"""Kaldi-compatible log-mel filter bank for padded batches, on the batch's device."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bridle_fairseq.utils.precision import KeepsDtype

PREEMPHASIS = 0.97
FRAME_LENGTH_MS = 25.0
FRAME_SHIFT_MS = 10.0
LOW_HZ = 20.0
MELS_OF_BAND = 32  # filters of a band overlap few bins: four small matrix products cost a third of a large one
CPU_FRAMES_AT_ONCE = 512  # keeps intermediate results in a core's cache
DEVICE_FRAMES_AT_ONCE = 2**16  # keeps intermediate results under 1 GB on other devices, for clips of any length
Count = TypeVar("Count", int, Tensor)


def frame_count(num_samples: Count, frame_length: int = 400, frame_shift: int = 160) -> Count:
    """Number of complete frames in a clip (Kaldi's ``snip_edges``), at least 1: shorter clips are zero-padded.

    Args:
        num_samples: length of the clip in samples, a number or a tensor.
        frame_length: samples per frame, 25 ms at 16 kHz by default.
        frame_shift: samples between the starts of two frames, 10 ms at 16 kHz by default.
    """
    if isinstance(num_samples, Tensor):
        return 1 + (num_samples - frame_length).clamp(min=0).div(frame_shift, rounding_mode="floor")
    return 1 if num_samples <= frame_length else 1 + (num_samples - frame_length) // frame_shift


def _mel_steps(num_mel_bins: int, sample_rate: int) -> tuple[float, float]:
    """Lower edge of the first filter, and the distance between the edges of neighbouring filters, in mel."""

    def mel(hz: float) -> float:
        return 1127.0 * math.log(1.0 + hz / 700.0)

    low = mel(LOW_HZ)
    return low, (mel(sample_rate / 2) - low) / (num_mel_bins + 1)


def mel_edges(num_mel_bins: int, sample_rate: int) -> Tensor:
    """Lower and upper edge of each filter in Hz, between which it is above 0: num_mel_bins x 2 float64."""
    low, step = _mel_steps(num_mel_bins, sample_rate)
    filters = torch.arange(num_mel_bins, dtype=torch.float64, device="cpu")[:, None]
    edges = low + (filters + torch.tensor([0.0, 2.0], dtype=torch.float64, device="cpu")) * step
    return 700.0 * ((edges / 1127.0).exp() - 1.0)


def scaled_bins(num_mel_bins: int, sample_rate: int, factors: Tensor) -> Tensor:
    """Where the filters' centre frequencies times a factor lie among the filters: B -> B x num_mel_bins, fractions."""
    low, step = _mel_steps(num_mel_bins, sample_rate)
    centres = low + torch.arange(1, num_mel_bins + 1, device=factors.device) * step
    hz = 700.0 * ((centres / 1127.0).exp() - 1.0) * factors[:, None]
    return (1127.0 * (1.0 + hz / 700.0).log() - low) / step - 1.0


def mel_filters(num_mel_bins: int, fft_length: int, sample_rate: int) -> Tensor:
    """Triangular filters, equally spaced in mel from 20 Hz to Nyquist: num_mel_bins x (fft_length / 2 + 1).

    The triangles are linear in mel, not in Hz (Kaldi, ``feat/mel-computations.cc``), and the Nyquist bin has weight 0.
    """
    low, step = _mel_steps(num_mel_bins, sample_rate)
    # float32 in torchaudio's order of operations: where a slope starts, the last bits change a log energy by 1e-4.
    # On the CPU even if the model is built on torch's "meta" device: filters are not in the file that fills the model.
    bins = torch.arange(fft_length // 2, device="cpu") * (sample_rate / fft_length)
    bins = 1127.0 * (1.0 + bins / 700.0).log()
    filters = torch.arange(num_mel_bins, device="cpu")[:, None]
    left, centre, right = (low + (filters + edge) * step for edge in (0.0, 1.0, 2.0))
    slopes = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return F.pad(slopes.clamp(min=0), (0, 1))


def _band(filters: Tensor, first: int) -> tuple[slice, slice]:
    """A band of filters from ``first`` on, and the bins of the spectrum where any of them is not 0."""
    mels = slice(first, first + MELS_OF_BAND)
    used = filters[mels].sum(0).nonzero()
    return mels, slice(int(used.min()), int(used.max()) + 1) if len(used) else slice(0, 0)


class LogMel(KeepsDtype):
    """Log-mel frames of waveforms in [-1, 1], equal to Kaldi's for each clip separately.

    The settings are those of AST and BEATs (``htk_compat``, no energy, Hanning window, no dither, DC removal and
    pre-emphasis in every frame). Computed in float32 without gradient, whatever the dtype of the model.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        num_mel_bins: int = 128,
        frame_length_ms: float = FRAME_LENGTH_MS,
        frame_shift_ms: float = FRAME_SHIFT_MS,
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.num_mel_bins = num_mel_bins
        self.frame_length = int(sample_rate * frame_length_ms / 1000)
        self.frame_shift = int(sample_rate * frame_shift_ms / 1000)
        self.fft_length = 2 ** math.ceil(math.log2(self.frame_length))
        window = torch.hann_window(self.frame_length, periodic=False, device="cpu")
        self.register_buffer("window", window, persistent=False)
        filters = mel_filters(num_mel_bins, self.fft_length, sample_rate)
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)
        self._bands = [_band(filters, first) for first in range(0, num_mel_bins, MELS_OF_BAND)]

    def frame_count(self, num_samples: Count) -> Count:
        """See :func:`frame_count`."""
        return frame_count(num_samples, self.frame_length, self.frame_shift)

    @torch.no_grad()
    def forward(self, waveform: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Log-mel frames and their padding mask.

        Args:
            waveform: B x S, in [-1, 1].
            padding_mask: B x S, True after a clip's end; None without padding.

        Returns:
            B x M x num_mel_bins float32, zero at padding; B x M, or None if ``padding_mask`` is None.
        """
        num_clips, longest = waveform.shape
        num_samples = torch.full((num_clips,), longest, device=waveform.device)
        if padding_mask is not None:
            num_samples -= padding_mask.sum(1, dtype=torch.int32)
        num_frames = torch.arange(self.frame_count(longest), device=waveform.device)
        frame_padding_mask = num_frames >= self.frame_count(num_samples)[:, None]
        with torch.autocast(waveform.device.type, enabled=False):
            if waveform.device.type == "cpu" and not torch.compiler.is_compiling():
                log_mel = self._clip_by_clip(waveform.float(), num_samples.tolist())
            else:
                log_mel = self._together(waveform.float(), padding_mask, num_samples)
                log_mel.masked_fill_(frame_padding_mask[..., None], 0.0)
        return log_mel, None if padding_mask is None else frame_padding_mask

    def _clip_by_clip(self, waveform: Tensor, num_samples: list[int]) -> Tensor:
        """B x S -> B x M x num_mel_bins on a CPU, without computing padding and within a core's cache.

        A clip's samples are summed in the same order as without a batch, so its mean and frames are bit-identical.
        """
        log_mel = waveform.new_zeros(len(waveform), self.frame_count(waveform.shape[1]), self.num_mel_bins)
        group = max(1, CPU_FRAMES_AT_ONCE // log_mel.shape[1])  # short clips are grouped, for fewer function calls
        for first in range(0, len(waveform), group):
            sizes = num_samples[first : first + group]
            centred = waveform.new_zeros(len(sizes), max(self.frame_length, *sizes))
            for clip, into, size in zip(waveform[first:], centred, sizes):  # noqa: B905 (ends with the group)
                torch.sub(clip[:size], clip[:size].mean(), out=into[:size])
            frames = centred.unfold(1, self.frame_length, self.frame_shift)  # group x frames x frame_length
            into = log_mel[first : first + group, : frames.shape[1]]
            for some, out in zip(frames.split(CPU_FRAMES_AT_ONCE, 1), into.split(CPU_FRAMES_AT_ONCE, 1), strict=True):
                out.copy_(self._log_mel_of_frames(some))
            for out, size in zip(into, sizes, strict=True):
                out[self.frame_count(size) :] = 0.0
        return log_mel

    def _together(self, waveform: Tensor, padding_mask: Tensor | None, num_samples: Tensor) -> Tensor:
        """B x S -> B x M x num_mel_bins on other devices: all clips at once, without a device synchronization."""
        if padding_mask is not None:
            waveform = waveform.masked_fill(padding_mask, 0.0)
        centred = waveform - (waveform.sum(1) / num_samples.clamp(min=1))[:, None]
        if padding_mask is not None:
            centred.masked_fill_(padding_mask, 0.0)
        centred = F.pad(centred, (0, max(self.frame_length - centred.shape[1], 0)))
        frames = centred.unfold(1, self.frame_length, self.frame_shift)  # B x M x frame_length
        if torch.compiler.is_compiling():  # a graph for any batch size cannot loop over groups of clips
            return self._log_mel_of_frames(frames)
        group = max(1, DEVICE_FRAMES_AT_ONCE // frames.shape[1])
        return torch.cat([self._log_mel_of_frames(some) for some in frames.split(group)])

    def _log_mel_of_frames(self, frames: Tensor) -> Tensor:
        """b x m x frame_length -> b x m x num_mel_bins.

        The operations before the Fourier transform keep Kaldi's order and rounding: in a narrow filter over a bin that
        nearly cancels, a last bit changes the log energy by 1e-3. The first sample of a frame, which Kaldi treats
        differently, is left out: the Hanning window is 0 there.
        """
        shape = frames.shape[:2]
        frames = (frames - frames.mean(-1, keepdim=True)).flatten(0, 1)  # (b * m) x frame_length
        windowed = frames.new_zeros(frames.shape[0], self.fft_length)
        inner = windowed[:, 1 : self.frame_length]
        torch.sub(frames[:, 1:], frames[:, :-1] * PREEMPHASIS, out=inner)
        inner.mul_(self.window[1:])
        squares = torch.view_as_real(torch.fft.rfft(windowed)).square_()
        power = squares[..., 0] + squares[..., 1]
        energies = frames.new_empty(frames.shape[0], self.num_mel_bins)
        for mels, bins in self._bands:
            torch.mm(power[:, bins], self.filters[bins, mels], out=energies[:, mels])
        return energies.clamp_(min=torch.finfo(torch.float32).eps).log_().view(*shape, -1)
