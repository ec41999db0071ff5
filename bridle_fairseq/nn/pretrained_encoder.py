"""An encoder that is fine-tuned or frozen, with its front end: what all heads on top of it share."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.batch_augment import spec_augment
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.finetuning import EncoderTuning, decay_learning_rates
from bridle_fairseq.nn.frontend import Patches, front_end_of
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.precision import autocast


class TunedEncoder(nn.Module):
    """Front end and encoder of a pretrained model.

    Args:
        settings: of the pretrained model.
        tuning: regularisation while training.
        freeze_encoder: the encoder gets no gradient and stays in eval mode.
    """

    def __init__(self, settings: BridleSettings, tuning: EncoderTuning, freeze_encoder: bool) -> None:
        super().__init__()
        s = self.settings = settings
        self.finetuning, self.freeze_encoder = tuning, freeze_encoder
        self.front_end = front_end_of(s)
        self.encoder = Encoder(
            self.front_end.patch_dim, s.encoder_width, s.encoder_depth, s.encoder_heads, drop_path=tuning.drop_path
        )
        if freeze_encoder:
            self.encoder.requires_grad_(False)
        elif tuning.layer_decay != 1:
            decay_learning_rates(self.encoder, self.encoder.blocks, tuning.layer_decay)

    def train(self, mode: bool = True) -> TunedEncoder:
        """As of any module, but a frozen encoder stays in eval mode: fairseq's trainer calls this at every update."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def patches(self, source: Tensor, padding_mask: Tensor | None = None) -> Patches:
        """Patches of a batch, with SpecAugment while training."""
        hides = self.finetuning.spec_augment_frames or self.finetuning.spec_augment_mel_bins
        return self.front_end(source, padding_mask, self._spec_augment if self.training and hides else None)

    def _spec_augment(self, x: Tensor, frame_padding: Tensor | None) -> Tensor:
        s = self.finetuning
        return spec_augment(x.squeeze(1), frame_padding, s.spec_augment_frames, s.spec_augment_mel_bins).unsqueeze(1)

    def encoding(self, device: torch.device) -> ExitStack:
        """The context in which the encoder runs: its precision, and no gradient where it is frozen."""
        context = ExitStack()
        if self.freeze_encoder:
            context.enter_context(torch.no_grad())
        context.enter_context(autocast(self.settings.precision, device))
        return context
