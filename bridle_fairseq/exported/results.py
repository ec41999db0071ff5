"""What exported models return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class _FeatureFields(NamedTuple):
    x: Tensor
    class_token: Tensor | None
    padding_mask: Tensor | None
    grid: tuple[int, ...]


class Features(_FeatureFields):
    """Features of the patches of a batch: four fields that can be unpacked, and three attributes.

    Attributes:
        x: B x N x D, patches in row-major order of the grid.
        class_token: B x D; None for layers below the last one.
        padding_mask: B x N bool; None without padding.
        grid: patches along each axis: sound (T, F), images (rows, columns), video (T, rows, columns).
        layers: outputs of the blocks that were asked for, B x N x D each, not normalized; empty unless asked for. A
            tuple, as ``hidden_states`` in transformers and what ``extract_features`` of torchaudio returns:
            ``torch.stack(features.layers)`` is L x B x N x D.
        times: N x 2 float32, start and end of each patch in seconds; None for images, and for video without a frame
            rate. The same for all clips of the batch: patches after the end of a shorter clip are padding.
        bands: N x 2 float32, lowest and highest frequency of each patch in Hz; None for images and video.
    """

    layers: tuple[Tensor, ...] = ()
    times: Tensor | None = None
    bands: Tensor | None = None

    def __new__(
        cls,
        x: Tensor,
        class_token: Tensor | None,
        padding_mask: Tensor | None,
        grid: tuple[int, ...],
        layers: tuple[Tensor, ...] = (),
        times: Tensor | None = None,
        bands: Tensor | None = None,
    ) -> Features:
        """Four fields and three attributes."""
        self = super().__new__(cls, x, class_token, padding_mask, grid)
        self.layers, self.times, self.bands = layers, times, bands
        return self


class Codes(NamedTuple):
    """Codes of the patches of a batch."""

    codes: Tensor  # B x N x K long, patches in row-major order of the grid
    padding_mask: Tensor | None  # B x N bool; None without padding
    grid: tuple[int, ...]  # patches along each axis: sound (T, F), images (rows, columns), video (T, rows, columns)
