"""From the inputs of a batch to patches: the only modality-specific modules of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.fbank import LogMel, mel_edges
from bridle_fairseq.nn.patch import grid_size, patch_padding, patchify
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.precision import KeepsDtype

Values = tuple[Tensor, Tensor | None]


class Patches(NamedTuple):
    """The patches of a batch."""

    x: Tensor  # B x N x patch_dim float32, the grid's first axis slowest; zero at padding
    grid: tuple[int, ...]  # patches along each axis
    padding_mask: Tensor | None  # B x N, or None without padding
    centred: Tensor | None = None  # B x N x patch_dim: ``x`` without the mean that ``target_norm`` names, if asked for

    def repeated(self, times: int) -> Patches:
        """The batch repeated: clips 1 to B, then 1 to B again; (times * B) x N x patch_dim."""
        padding, centred = (
            None if x is None else x.repeat(times, *[1] * (x.dim() - 1)) for x in (self.padding_mask, self.centred)
        )
        return Patches(self.x.repeat(times, 1, 1), self.grid, padding, centred)


def _first_and_last(size: int, patch_size: int) -> tuple[Tensor, Tensor]:
    """Numbers of the first and the last value of each patch along an axis; the last patch may be incomplete."""
    first = torch.arange(0, size, patch_size)
    return first, (first + patch_size - 1).clamp(max=size - 1)


class FrontEnd(nn.Module):
    """Normalizes inputs and splits them into patches, on the batch's device, in float32 and without gradient.

    A subclass defines the values (:meth:`values`) and their number (:meth:`value_sizes`).

    Attributes:
        patch_size: values of a patch along each axis.
        num_channels: channels of a value.
        layout: size of a patch, as files of codes and features describe it.
        rows: number of frequency rows of patches; None for images and video.
    """

    num_channels: int
    layout: dict[str, int]
    rows: int | None = None

    def __init__(self, settings: BridleSettings) -> None:
        super().__init__()
        self.patch_size = tuple(settings.patch_size)
        self.target_norm = settings.target_norm

    def values(self, source: Tensor, padding_mask: Tensor | None = None) -> Values:
        """Normalized values, B x channels x sizes, zero at padding; and their padding mask, B x sizes or None."""
        raise NotImplementedError

    def value_sizes(self, source_sizes: Sequence[int]) -> tuple[int, ...]:
        """Values along each axis for an item of these sizes (audio: samples; pixels: all axes but the channels)."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(
        self,
        source: Tensor,
        padding_mask: Tensor | None = None,
        augment: Callable[..., Tensor] | None = None,
        with_centred: bool = False,
    ) -> Patches:
        """A batch and its padding mask -> :class:`Patches`; ``augment`` is applied to :meth:`values` and their mask."""
        x, padding = self.values(source, padding_mask)
        if augment is not None:
            x = augment(x, padding)
        grid = grid_size(x.shape[2:], self.patch_size)
        centred = self._centred(x, padding) if with_centred else None
        padding = None if padding is None else patch_padding(padding, self.patch_size, grid)
        return Patches(patchify(x, self.patch_size), grid, padding, centred)

    def _centred(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Patches of the values minus the mean that ``target_norm`` names; zero at padding as those of ``x``."""
        if padding is not None:  # B x 1 x sizes
            padding = padding.view(len(x), 1, *padding.shape[1:], *[1] * (x.dim() - 1 - padding.dim()))
        if self.target_norm == "patch":
            return self._centred_patches(x, padding)
        axes = (2,) if self.target_norm == "band" else tuple(range(2, x.dim()))
        if padding is None:
            return patchify(x - x.mean(axes, keepdim=True), self.patch_size)
        count = (~padding).expand(len(x), 1, *x.shape[2:]).sum(axes, keepdim=True).clamp(min=1)
        return patchify((x - x.sum(axes, keepdim=True) / count).masked_fill(padding, 0.0), self.patch_size)

    def _centred_patches(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Patches minus the mean of their valid values in each channel."""
        valid = x.new_ones(len(x), 1, *x.shape[2:])
        if padding is not None:
            valid = valid.masked_fill(padding, 0.0)
        # an incomplete last patch is filled with zeros, which are not valid either
        valid = patchify(valid, self.patch_size).unsqueeze(2)  # B x N x 1 x values
        patches = patchify(x, self.patch_size).unflatten(2, (self.num_channels, -1))  # B x N x channels x values
        mean = patches.sum(3, keepdim=True) / valid.sum(3, keepdim=True).clamp(min=1)
        return ((patches - mean) * valid).flatten(2)

    def grid(self, source_sizes: Sequence[int]) -> tuple[int, ...]:
        """Patches along each axis for an item of these sizes."""
        return grid_size(self.value_sizes(source_sizes), self.patch_size)

    def times(self, source_sizes: Sequence[int], frame_rate: float | None = None) -> Tensor | None:
        """Start and end of each patch in seconds, N x 2 float32 on the CPU; None where patches have no time.

        Args:
            source_sizes: as :meth:`grid` takes them.
            frame_rate: video: frames of the clip per second; without it, patches have no time.
        """
        return None

    def bands(self, source_sizes: Sequence[int]) -> Tensor | None:
        """Lowest and highest frequency of each patch in Hz, N x 2 float32 on the CPU; None without frequencies."""
        return None

    @property
    def patch_dim(self) -> int:
        """Number of values of a patch, over all channels."""
        count = self.num_channels
        for size in self.patch_size:
            count *= size
        return count


class AudioFrontEnd(FrontEnd):
    """Waveforms (B x S) -> normalized log-mel (1 channel, M frames x mel bins) -> patches."""

    num_channels = 1

    def __init__(self, settings: BridleSettings) -> None:
        super().__init__(settings)
        self.mean, self.std = settings.fbank_mean, settings.fbank_std
        self.log_mel = LogMel(settings.sample_rate, settings.num_mel_bins)
        (self.rows,) = grid_size((settings.num_mel_bins,), self.patch_size[1:])
        self.layout = {"frequency_patches": self.rows, "patch_frames": self.patch_size[0]}

    @torch.no_grad()
    def fbank(self, waveform: Tensor, padding_mask: Tensor | None = None) -> Values:
        """Normalized log-mel, B x M x mel bins, zero at padding; and the padding mask of frames, B x M or None."""
        fbank, frame_padding = self.log_mel(waveform, padding_mask)
        fbank = (fbank - self.mean) / (2 * self.std)
        if frame_padding is not None:
            fbank = fbank.masked_fill(frame_padding.unsqueeze(-1), 0.0)
        return fbank, frame_padding

    def values(self, source: Tensor, padding_mask: Tensor | None = None) -> Values:
        """:meth:`fbank` with a channel axis: B x 1 x M x mel bins."""
        fbank, frame_padding = self.fbank(source, padding_mask)
        return fbank.unsqueeze(1), frame_padding

    def times(self, source_sizes: Sequence[int], frame_rate: float | None = None) -> Tensor:
        """From the first sample of a patch's first frame to the last of its last frame, within the clip."""
        (samples,) = source_sizes
        log_mel, (frames, _) = self.log_mel, self.value_sizes(source_sizes)
        first, last = _first_and_last(frames, self.patch_size[0])  # T
        ends = (last * log_mel.frame_shift + log_mel.frame_length).clamp(max=samples)
        seconds = torch.stack([first * log_mel.frame_shift, ends], 1).double() / log_mel.sample_rate  # T x 2
        return seconds.float().repeat_interleave(self.grid(source_sizes)[1], dim=0)

    def bands(self, source_sizes: Sequence[int]) -> Tensor:
        """From the lower edge of a patch's first mel filter to the upper edge of its last one."""
        first, last = _first_and_last(self.log_mel.num_mel_bins, self.patch_size[1])  # F
        edges = mel_edges(self.log_mel.num_mel_bins, self.log_mel.sample_rate)
        hertz = torch.stack([edges[first, 0], edges[last, 1]], 1)  # F x 2
        return hertz.float().repeat(self.grid(source_sizes)[0], 1)

    def value_sizes(self, source_sizes: Sequence[int]) -> tuple[int, ...]:
        """Number of frames and of mel bins."""
        (samples,) = source_sizes
        return int(self.log_mel.frame_count(samples)), self.log_mel.num_mel_bins


class PixelFrontEnd(FrontEnd, KeepsDtype):
    """Pixels (B x 3 x height x width, or B x 3 x frames x height x width; see :func:`unit_range`) -> patches."""

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
        """(pixel - mean) / std of each channel; padding is 0, the mean colour."""
        shape = (-1, *[1] * (source.dim() - 2))  # 3 x 1 x 1 (x 1)
        x = (unit_range(source) - self.mean.view(shape)) / self.std.view(shape)
        if padding_mask is not None:
            x = x.masked_fill(padding_mask.unsqueeze(1), 0.0)
        return x, padding_mask

    def times(self, source_sizes: Sequence[int], frame_rate: float | None = None) -> Tensor | None:
        """From the start of a patch's first frame to the end of its last one, if there are frames."""
        if frame_rate is None or len(self.patch_size) < 3:
            return None
        first, last = _first_and_last(source_sizes[0], self.patch_size[0])  # T
        seconds = torch.stack([first, last + 1], 1).double() / frame_rate  # T x 2
        rows, columns = self.grid(source_sizes)[1:]
        return seconds.float().repeat_interleave(rows * columns, dim=0)

    def value_sizes(self, source_sizes: Sequence[int]) -> tuple[int, ...]:
        """The same: values are pixels."""
        return tuple(source_sizes)


def unit_range(pixels: Tensor) -> Tensor:
    """Pixels as float32 from 0 to 1; integers are taken as 0 to 255, floating-point numbers as 0 to 1."""
    return pixels.float() if pixels.is_floating_point() else pixels.float() / 255


FRONT_ENDS = {"audio": AudioFrontEnd, "image": PixelFrontEnd, "video": PixelFrontEnd}


def front_end_of(settings: BridleSettings) -> FrontEnd:
    """The front end of a model with these settings."""
    return FRONT_ENDS[settings.modality](settings)
