"""Speech recognition on a pretrained encoder by connectionist temporal classification (CTC; Graves et al., ICML 2006).

The patches of a time step are pooled to one vector, and a linear layer maps it to the logits of ``upsample`` output
frames: a patch of 8 log-mel frames lasts 80 ms, longer than many letters of speech. The transcript of a path through
the output frames merges repeated symbols and then removes blanks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridle_fairseq.nn.fbank import FRAME_SHIFT_MS
from bridle_fairseq.nn.frontend import FrontEnd
from bridle_fairseq.nn.pooling import pooled_width
from bridle_fairseq.nn.pretrained_encoder import EncoderRegularization, PretrainedEncoder, check_regularization
from bridle_fairseq.nn.settings import BridleSettings, check_settings
from bridle_fairseq.utils.errors import InputError

BLANK = 0  # index of <s> in a fairseq dictionary, which no transcript contains
STEP_POOLINGS = ("mean", "frequency")


class Emissions(NamedTuple):
    """Output of a :class:`Transcriber`."""

    logits: Tensor  # B x frames x symbols float32
    lengths: Tensor  # B int64, frames of each clip; the rest is padding


class Transcriber(PretrainedEncoder):
    """Encoder, pooling of each time step, norm, linear head.

    Args:
        settings: settings of the pretrained model.
        num_symbols: size of the dictionary, including the blank (:data:`BLANK`).
        pooling: how the patches of a time step are pooled: ``mean`` -> D values, ``frequency`` (concatenate) -> F * D.
        upsample: output frames per time step.
        freeze_encoder: only norm and head learn.
        regularization: regularization of training; none by default.

    Raises:
        InputError: the model is not for audio, or settings are not possible.
    """

    def __init__(
        self,
        settings: BridleSettings,
        num_symbols: int,
        pooling: str = "frequency",
        upsample: int = 4,
        freeze_encoder: bool = False,
        regularization: EncoderRegularization | None = None,
    ) -> None:
        check_settings(settings)
        if pooling not in STEP_POOLINGS:
            raise InputError(f"model.pooling is {pooling!r}; expected one of {', '.join(STEP_POOLINGS)}")
        if upsample < 1:
            raise InputError(f"model.upsample is {upsample}; expected 1 or more")
        regularization = regularization or EncoderRegularization()
        check_regularization(regularization, freeze_encoder)
        super().__init__(settings, regularization, freeze_encoder)
        if self.front_end.rows is None:
            raise InputError(f"the pretrained model is of modality {settings.modality}; expected one of sound")
        self.pooling, self.upsample, self.num_symbols = pooling, upsample, num_symbols
        width = pooled_width(self.front_end, settings.encoder_width, pooling)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.frame_head = nn.Linear(width, upsample * num_symbols)
        nn.init.trunc_normal_(self.frame_head.weight, std=0.02)
        nn.init.zeros_(self.frame_head.bias)

    @property
    def frame_ms(self) -> float:
        """Duration of an output frame in milliseconds."""
        return self.settings.patch_size[0] * FRAME_SHIFT_MS / self.upsample

    def forward(self, source: Tensor, padding_mask: Tensor | None = None) -> Emissions:
        """Logits of the symbols in every output frame.

        Args:
            source: B x S waveforms.
            padding_mask: B x S, True at padding; or None.
        """
        patches = self.patches(source, padding_mask)
        with self.encoding(source.device):
            out = self.encoder(patches.x, patches.grid, patches.padding_mask)
        x = out.x.float().unflatten(1, patches.grid)  # B x T x F x D
        x = x.mean(2) if self.pooling == "mean" else x.flatten(2)  # B x T x D, or B x T x (F * D)
        logits = self.frame_head(self.norm(x.to(self.frame_head.weight.dtype))).float()  # B x T x (upsample * symbols)
        steps = torch.full((len(x),), x.shape[1], device=x.device)  # B
        if patches.padding_mask is not None:  # all rows of a time step are padding, or none is
            steps = (~patches.padding_mask.unflatten(1, patches.grid)[:, :, 0]).sum(1)
        # logits: B x T x (upsample * symbols) -> B x (T * upsample) x symbols
        return Emissions(logits.unflatten(2, (self.upsample, -1)).flatten(1, 2), steps * self.upsample)


def emitted_frames(front_end: FrontEnd, upsample: int, samples: int) -> int:
    """Number of output frames of a :class:`Transcriber` for a clip of ``samples``."""
    return front_end.grid((samples,))[0] * upsample


def needed_frames(target: Tensor) -> int:
    """Smallest number of frames for a target (L symbols): one per symbol, and a blank between two equal symbols."""
    return len(target) + int((target[1:] == target[:-1]).sum())


def ctc_loss(emissions: Emissions, target: Tensor, target_lengths: Tensor) -> Tensor:
    """Negative log likelihood of the targets, summed over clips, in float32.

    Args:
        emissions: emissions of a batch.
        target: B x L symbols; the padding can have any value.
        target_lengths: B.
    """
    log_probabilities = emissions.logits.float().log_softmax(2).transpose(0, 1)  # frames x B x symbols
    return functional.ctc_loss(
        log_probabilities, target, emissions.lengths, target_lengths, blank=BLANK, reduction="sum"
    )


def greedy(emissions: Emissions) -> list[list[int]]:
    """Greedy decoding: the symbols of each clip's most likely path."""
    best = emissions.logits.argmax(2)  # B x frames
    paths = (path[:length].unique_consecutive() for path, length in zip(best, emissions.lengths.tolist(), strict=True))
    return [path[path != BLANK].tolist() for path in paths]
