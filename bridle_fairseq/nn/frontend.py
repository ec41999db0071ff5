"""From what a batch holds to patches: the only place of this layer that knows the modality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.fbank import LogMel
from bridle_fairseq.nn.patch import grid_size, patch_padding, patchify
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.precision import KeepsDtype

Values = tuple[Tensor, Tensor | None]


class Patches(NamedTuple):
    """A batch, cut into patches."""

    x: Tensor  # B x N x patch_dim float32, the grid's first axis slowest; zeros where values are padding
    grid: tuple[int, ...]  # patches along each axis
    padding_mask: Tensor | None  # B x N, or None where nothing is padding

    def repeated(self, times: int) -> Patches:
        """The batch several times over, clip 1 to B, then 1 to B again."""
        padding = self.padding_mask
        return Patches(self.x.repeat(times, 1, 1), self.grid, None if padding is None else padding.repeat(times, 1))


class FrontEnd(nn.Module):
    """Normalised values on a grid, cut into patches; on the batch's device, always in float32 and without gradient.

    A modality says what its values are (:meth:`values`) and how many of them an item has (:meth:`value_sizes`).

    Attributes:
        patch_size: values of a patch along each axis.
        num_channels: of a value.
        layout: what a patch stands for, as files of codes and features say it.
        rows: patches of a step of time that have a meaning of their own (frequency rows); None where none have.
    """

    num_channels: int
    layout: dict[str, int]
    rows: int | None = None

    def __init__(self, settings: BridleSettings) -> None:
        super().__init__()
        self.patch_size = tuple(settings.patch_size)

    def values(self, source: Tensor, padding_mask: Tensor | None = None) -> Values:
        """Normalised values, B x channels x sizes, zeros at padding; and which of them are padding (B x sizes)."""
        raise NotImplementedError

    def value_sizes(self, source_sizes: Sequence[int]) -> tuple[int, ...]:
        """Values along each axis of an item with these sizes (sound: samples; pixels: all axes but colour)."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(
        self, source: Tensor, padding_mask: Tensor | None = None, augment: Callable[..., Tensor] | None = None
    ) -> Patches:
        """A batch (and its padding) -> :class:`Patches`; ``augment`` changes what :meth:`values` gives."""
        x, padding = self.values(source, padding_mask)
        if augment is not None:
            x = augment(x, padding)
        grid = grid_size(x.shape[2:], self.patch_size)
        padding = None if padding is None else patch_padding(padding, self.patch_size, grid)
        return Patches(patchify(x, self.patch_size), grid, padding)

    def grid(self, source_sizes: Sequence[int]) -> tuple[int, ...]:
        """Patches along each axis of an item with these sizes."""
        return grid_size(self.value_sizes(source_sizes), self.patch_size)

    @property
    def patch_dim(self) -> int:
        """Values of a patch, of all channels."""
        count = self.num_channels
        for size in self.patch_size:
            count *= size
        return count


class AudioFrontEnd(FrontEnd):
    """Waveforms (B x S) -> normalised log-mel (1 channel, M frames x mel bins) -> patches."""

    num_channels = 1

    def __init__(self, settings: BridleSettings) -> None:
        super().__init__(settings)
        self.mean, self.std = settings.fbank_mean, settings.fbank_std
        self.log_mel = LogMel(settings.sample_rate, settings.num_mel_bins)
        (self.rows,) = grid_size((settings.num_mel_bins,), self.patch_size[1:])
        self.layout = {"frequency_patches": self.rows, "patch_frames": self.patch_size[0]}

    @torch.no_grad()
    def fbank(self, waveform: Tensor, padding_mask: Tensor | None = None) -> Values:
        """Normalised log-mel, B x M x mel, zeros at padding; and which frames are padding, B x M."""
        fbank, frame_padding = self.log_mel(waveform, padding_mask)
        fbank = (fbank - self.mean) / (2 * self.std)
        if frame_padding is not None:
            fbank = fbank.masked_fill(frame_padding.unsqueeze(-1), 0.0)
        return fbank, frame_padding

    def values(self, source: Tensor, padding_mask: Tensor | None = None) -> Values:
        """:meth:`fbank` with its one channel."""
        fbank, frame_padding = self.fbank(source, padding_mask)
        return fbank.unsqueeze(1), frame_padding

    def value_sizes(self, source_sizes: Sequence[int]) -> tuple[int, ...]:
        """Frames and mel bins of so many samples."""
        (samples,) = source_sizes
        return int(self.log_mel.frame_count(samples)), self.log_mel.num_mel_bins


class PixelFrontEnd(FrontEnd, KeepsDtype):
    """Pixels (B x 3 x height x width; clips: B x 3 x frames x ...; see :func:`unit_range`) -> normalised -> patches."""

    num_channels = 3
    mean: Tensor
    std: Tensor

    def __init__(self, settings: BridleSettings) -> None:
        super().__init__(settings)
        for name, values in (("mean", settings.pixel_mean), ("std", settings.pixel_std)):
            self.register_buffer(name, torch.tensor(values, device="cpu"), persistent=False)
        axes = ("patch_frames", "patch_height", "patch_width")[-len(self.patch_size) :]
        self.layout = dict(zip(axes, self.patch_size, strict=True))

    def values(self, source: Tensor, padding_mask: Tensor | None = None) -> Values:
        """(pixel - mean) / deviation of each channel, the mean colour at padding."""
        shape = (-1, *[1] * (source.dim() - 2))
        x = (unit_range(source) - self.mean.view(shape)) / self.std.view(shape)
        if padding_mask is not None:
            x = x.masked_fill(padding_mask.unsqueeze(1), 0.0)
        return x, padding_mask

    def value_sizes(self, source_sizes: Sequence[int]) -> tuple[int, ...]:
        """Pixels are the values."""
        return tuple(source_sizes)


def unit_range(pixels: Tensor) -> Tensor:
    """Pixels as float32 from 0 to 1: whole numbers are 0 to 255, floating-point ones are 0 to 1 already."""
    return pixels.float() if pixels.is_floating_point() else pixels.float() / 255


FRONT_ENDS = {"audio": AudioFrontEnd, "image": PixelFrontEnd, "video": PixelFrontEnd}


def front_end_of(settings: BridleSettings) -> FrontEnd:
    """The front end of a model with these settings."""
    return FRONT_ENDS[settings.modality](settings)
