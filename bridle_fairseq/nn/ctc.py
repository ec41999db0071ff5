"""Transcripts on top of the encoder by connectionist temporal classification (CTC; Graves et al., ICML 2006).

The patches of a time step become one vector, and a linear map makes of it the logits of ``upsample`` frames: a patch of
8 log-mel frames lasts 80 ms, which is more than many a letter of speech. A path through the frames spells a transcript
when repeated symbols are taken together and blanks are then left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridle_fairseq.nn.fbank import FRAME_SHIFT_MS
from bridle_fairseq.nn.frontend import FrontEnd
from bridle_fairseq.nn.pooling import pooled_width
from bridle_fairseq.nn.pretrained_encoder import EncoderTuning, TunedEncoder, check_tuning
from bridle_fairseq.nn.settings import BridleSettings, check_settings
from bridle_fairseq.utils.errors import InputError

BLANK = 0  # the first symbol of a fairseq dictionary, <s>, which stands in no transcript
STEP_POOLINGS = ("mean", "frequency")


class Emissions(NamedTuple):
    """What a model says of each frame."""

    logits: Tensor  # B x frames x symbols float32
    lengths: Tensor  # B int64, frames of each clip; what lies behind is padding


class Transcriber(TunedEncoder):
    """Encoder, pooling of each time step, norm, linear head.

    Args:
        settings: of the pretrained model; front end and encoder are built after them.
        num_symbols: of the dictionary, the blank (number :data:`BLANK`) among them.
        pooling: what becomes of a time step's patches: ``mean`` -> D values, or ``frequency``: kept apart -> F * D.
        upsample: frames that a time step emits.
        freeze_encoder: norm and head alone learn.
        finetuning: regularisation while training; none by default.

    Raises:
        InputError: a model of another modality than sound, or settings that cannot work.
    """

    def __init__(
        self,
        settings: BridleSettings,
        num_symbols: int,
        pooling: str = "frequency",
        upsample: int = 4,
        freeze_encoder: bool = False,
        finetuning: EncoderTuning | None = None,
    ) -> None:
        check_settings(settings)
        if pooling not in STEP_POOLINGS:
            raise InputError(f"model.pooling is {pooling!r}; expected one of {', '.join(STEP_POOLINGS)}")
        if upsample < 1:
            raise InputError(f"model.upsample is {upsample}; expected 1 or more")
        tuning = EncoderTuning() if finetuning is None else finetuning
        check_tuning(tuning, freeze_encoder)
        super().__init__(settings, tuning, freeze_encoder)
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
        """Time from one emitted frame to the next, in milliseconds."""
        return self.settings.patch_size[0] * FRAME_SHIFT_MS / self.upsample

    def forward(self, source: Tensor, padding_mask: Tensor | None = None) -> Emissions:
        """Logits of the symbols in every frame.

        Args:
            source: B x S waveforms.
            padding_mask: B x S, True at padding; or None.
        """
        patches = self.patches(source, padding_mask)
        with self.encoding(source.device):
            out = self.encoder(patches.x, patches.grid, patches.padding_mask)
        x = out.x.float().unflatten(1, patches.grid)  # B x T x F x D
        x = x.mean(2) if self.pooling == "mean" else x.flatten(2)
        logits = self.frame_head(self.norm(x.to(self.frame_head.weight.dtype))).float()
        steps = torch.full((len(x),), x.shape[1], device=x.device)
        if patches.padding_mask is not None:  # the rows of a time step are padding together
            steps = (~patches.padding_mask.unflatten(1, patches.grid)[:, :, 0]).sum(1)
        return Emissions(logits.unflatten(2, (self.upsample, -1)).flatten(1, 2), steps * self.upsample)


def emitted_frames(front_end: FrontEnd, upsample: int, samples: int) -> int:
    """Frames that a :class:`Transcriber` with this front end emits for so many samples."""
    return front_end.grid((samples,))[0] * upsample


def needed_frames(target: Tensor) -> int:
    """The fewest frames that can spell a target (L symbols): one a symbol, and a blank between two that are equal."""
    return len(target) + int((target[1:] == target[:-1]).sum())


def ctc_loss(emissions: Emissions, target: Tensor, target_lengths: Tensor) -> Tensor:
    """Minus the log of the probability of all paths that spell the targets, summed over clips, in float32.

    Args:
        emissions: of a batch.
        target: B x L symbols, padded with anything.
        target_lengths: B.
    """
    log_probabilities = emissions.logits.float().log_softmax(2).transpose(0, 1)
    return functional.ctc_loss(
        log_probabilities, target, emissions.lengths, target_lengths, blank=BLANK, reduction="sum"
    )


def greedy(emissions: Emissions) -> list[list[int]]:
    """The symbols that each clip's likeliest path spells."""
    best = emissions.logits.argmax(2)
    paths = (path[:length].unique_consecutive() for path, length in zip(best, emissions.lengths.tolist(), strict=True))
    return [path[path != BLANK].tolist() for path in paths]
