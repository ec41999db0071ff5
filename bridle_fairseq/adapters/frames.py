"""A vector for each time step of a clip, as benchmarks of sound want it: B x S waveforms -> B x T x D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bridle_fairseq.exported.results import Features
from bridle_fairseq.exported.validate_inputs import Inputs
from bridle_fairseq.nn.fbank import FRAME_LENGTH_MS, FRAME_SHIFT_MS
from bridle_fairseq.nn.pooling import pooled_width
from bridle_fairseq.pretrained import Pretrained, load
from bridle_fairseq.utils.errors import InputError

ROWS = ("frequency", "mean")  # what becomes of the frequency rows of a time step


class ExportFrames(nn.Module):
    """The frozen encoder of an export for sound.

    Args:
        source: folder, name of weights of this package, or name on the Hub (:func:`.pretrained.load`).
        rows: ``frequency`` concatenates the frequency rows of a time step, F * D values; ``mean`` averages them.
        layer: block whose output is used, from 1; None: the normalized last one.

    Attributes:
        model: the :class:`.Pretrained`.
        sampling_rate: of the model, in Hz.
        hop_size_in_ms: from one time step to the next.
        output_dim: values of a time step.

    Raises:
        InputError: as :func:`.pretrained.load`; no encoder for sound, or no such ``rows`` or layer.
    """

    def __init__(self, source: str, rows: str = "frequency", layer: int | None = None) -> None:
        super().__init__()
        if rows not in ROWS:
            raise InputError(f"rows is {rows!r}; expected {' or '.join(ROWS)}")
        model = sound_encoder(source)
        self.model, self.rows, self.layer = model, rows, layer
        self.export = model.module  # moves with this module
        self.sampling_rate, self.patch_frames = model.sample_rate, model.settings.patch_size[0]
        self.hop_size_in_ms = self.patch_frames * FRAME_SHIFT_MS
        width = model.settings.encoder_width
        self.output_dim = pooled_width(model.module.front_end, width, rows)
        if layer is not None:
            model.features(torch.zeros(1, self.sampling_rate), self.sampling_rate, layer=layer)  # checks the number

    def forward(self, audio: Inputs, lengths: Sequence[int] | None = None) -> Tensor:
        """Vectors of the time steps, B x T x output_dim float32, zero after a clip's end.

        Args:
            audio: B x S waveforms in [-1, 1] at ``sampling_rate``, or a list of clips.
            lengths: B, samples of each clip; None: all.
        """
        features = self.model.features(audio, self.sampling_rate, lengths, self.layer)
        return self.steps(features.x, features)

    def steps(self, x: Tensor, features: Features) -> Tensor:
        """Patches B x N x D -> time steps B x T x output_dim."""
        if features.padding_mask is not None:  # all rows of a time step are padding, or none is
            x = x.masked_fill(features.padding_mask.unsqueeze(-1), 0.0)
        x = x.unflatten(1, features.grid)  # B x T x F x D
        return (x.flatten(2) if self.rows == "frequency" else x.mean(2)).float()

    def centres(self, count: int) -> Tensor:
        """Centres of the first time steps in ms, at equal distances: T float32."""
        first = ((self.patch_frames - 1) * FRAME_SHIFT_MS + FRAME_LENGTH_MS) / 2
        return first + self.hop_size_in_ms * torch.arange(count, dtype=torch.float32)


def sound_encoder(source: str, device: str = "cpu") -> Pretrained:
    """An export with an encoder for sound, on a device.

    Raises:
        InputError: as :func:`.pretrained.load`, or no encoder for sound.
    """
    model = load(source, device)
    if model.settings.modality != "audio" or model.core is None:
        raise InputError(f"{source}: no encoder for sound; expected an export with one")
    return model
