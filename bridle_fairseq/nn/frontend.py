"""From what a batch holds to patches: the only place that knows the modality."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.fbank import LogMel
from bridle_fairseq.nn.patch import grid_size, patch_padding, patchify
from bridle_fairseq.nn.settings import BridleSettings


class Patches(NamedTuple):
    """A batch, cut into patches."""

    x: Tensor  # B x N x patch_dim float32, time-major; zeros where frames are padding
    grid: tuple[int, ...]  # patches along each axis
    padding_mask: Tensor | None  # B x N, or None where nothing is padding


class AudioFrontEnd(nn.Module):
    """Waveforms -> normalised log-mel -> patches, on the batch's device, always in float32 and without gradient."""

    def __init__(self, settings: BridleSettings) -> None:
        super().__init__()
        self.mean, self.std = settings.fbank_mean, settings.fbank_std
        self.patch_size = tuple(settings.patch_size)
        self.log_mel = LogMel(settings.sample_rate, settings.num_mel_bins)

    @torch.no_grad()
    def fbank(self, waveform: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Normalised log-mel, B x M x mel, zeros at padding; and which frames are padding, B x M."""
        fbank, frame_padding = self.log_mel(waveform, padding_mask)
        fbank = (fbank - self.mean) / (2 * self.std)
        if frame_padding is not None:
            fbank = fbank.masked_fill(frame_padding.unsqueeze(-1), 0.0)
        return fbank, frame_padding

    @torch.no_grad()
    def forward(
        self,
        source: Tensor,
        padding_mask: Tensor | None = None,
        augment: Callable[[Tensor, Tensor | None], Tensor] | None = None,
    ) -> Patches:
        """B x S waveforms (and their padding) -> :class:`Patches`; ``augment`` changes what :meth:`fbank` gives."""
        fbank, frame_padding = self.fbank(source, padding_mask)
        if augment is not None:
            fbank = augment(fbank, frame_padding)
        grid = grid_size(fbank.shape[1:], self.patch_size)
        padding = None if frame_padding is None else patch_padding(frame_padding, self.patch_size[0], grid[1])
        return Patches(patchify(fbank.unsqueeze(1), self.patch_size), grid, padding)

    @property
    def patch_dim(self) -> int:
        """Values of a patch."""
        return self.patch_size[0] * self.patch_size[1]
