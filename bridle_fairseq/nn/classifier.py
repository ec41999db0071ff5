"""A classifier on top of the encoder: pooled patches, a norm and one linear map (METHOD, section 4: fine-tuning)."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from bridle_fairseq.errors import InputError
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.frontend import AudioFrontEnd
from bridle_fairseq.nn.patch import grid_size
from bridle_fairseq.nn.pooling import POOLINGS, pool_patches
from bridle_fairseq.nn.settings import BridleSettings, check_settings


class Classifier(nn.Module):
    """Encoder, pooling, norm, linear head.

    Args:
        settings: of the pretrained model; front end and encoder are built after them.
        num_classes: outputs.
        pooling: see :func:`pool_patches`.
        freeze_encoder: norm and head alone learn; the encoder gets no gradient.

    Raises:
        InputError: an unknown pooling, or settings that cannot work.
    """

    def __init__(
        self, settings: BridleSettings, num_classes: int, pooling: str = "mean", freeze_encoder: bool = False
    ) -> None:
        check_settings(settings)
        if pooling not in POOLINGS:
            raise InputError(f"model.pooling is {pooling!r}; expected one of {', '.join(POOLINGS)}")
        super().__init__()
        s = self.settings = settings
        self.pooling, self.freeze_encoder = pooling, freeze_encoder
        self.front_end = AudioFrontEnd(s)
        self.encoder = Encoder(self.front_end.patch_dim, s.encoder_width, s.encoder_depth, s.encoder_heads)
        if freeze_encoder:
            self.encoder.requires_grad_(False)
        (rows,) = grid_size((s.num_mel_bins,), s.patch_size[1:])
        width = s.encoder_width * (rows if pooling == "frequency" else 1)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def train(self, mode: bool = True) -> Classifier:
        """As of any module, but a frozen encoder stays in eval mode: fairseq's trainer calls this at every update."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def pooled(self, source: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """What :meth:`forward` classifies, B x width, float32."""
        patches = self.front_end(source, padding_mask)
        bfloat16 = torch.autocast(source.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")
        with torch.no_grad() if self.freeze_encoder else nullcontext(), bfloat16:
            out = self.encoder(patches.x, patches.grid, patches.padding_mask)
        return pool_patches(out, patches.grid, patches.padding_mask, self.pooling)

    def forward(self, source: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Logits of the classes, B x num_classes, float32.

        Args:
            source: what the front end takes (audio: B x S waveforms, of any length).
            padding_mask: B x S or None.
        """
        pooled = self.pooled(source, padding_mask).to(self.head.weight.dtype)
        return self.head(self.norm(pooled)).float()
