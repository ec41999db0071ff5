"""A classifier on top of the encoder: pooled patches, a norm and one linear map (METHOD, section 4: fine-tuning)."""

from __future__ import annotations

from torch import Tensor, nn

from bridle_fairseq.nn.frontend import Patches
from bridle_fairseq.nn.masking import GridMask, grid_mask
from bridle_fairseq.nn.pooling import POOLINGS, pool_patches, pooled_width
from bridle_fairseq.nn.pretrained_encoder import FineTuning, TunedEncoder, check_finetuning
from bridle_fairseq.nn.settings import BridleSettings, check_settings
from bridle_fairseq.utils.errors import InputError


def class_scores(logits: Tensor, multi_label: bool) -> Tensor:
    """Probabilities of the classes, B x classes: each by itself, or of exactly one of them."""
    return logits.sigmoid() if multi_label else logits.softmax(1)


class Classifier(TunedEncoder):
    """Encoder, pooling, norm, linear head.

    Args:
        settings: of the pretrained model; front end and encoder are built after them.
        num_classes: outputs.
        pooling: see :func:`pool_patches`.
        freeze_encoder: norm and head alone learn; the encoder gets no gradient.
        finetuning: regularisation while training; none by default.

    Raises:
        InputError: an unknown pooling, or settings that cannot work.
    """

    finetuning: FineTuning

    def __init__(
        self,
        settings: BridleSettings,
        num_classes: int,
        pooling: str = "mean",
        freeze_encoder: bool = False,
        finetuning: FineTuning | None = None,
    ) -> None:
        check_settings(settings)
        if pooling not in POOLINGS:
            raise InputError(f"model.pooling is {pooling!r}; expected one of {', '.join(POOLINGS)}")
        tuning = FineTuning() if finetuning is None else finetuning
        check_finetuning(tuning, pooling, freeze_encoder, settings.modality)
        super().__init__(settings, tuning, freeze_encoder)
        self.pooling = pooling
        width = pooled_width(self.front_end, settings.encoder_width, pooling)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def pooled(self, source: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """What :meth:`forward` classifies, B x width, float32."""
        patches = self.patches(source, padding_mask)
        mask = self._patch_mask(patches)
        with self.encoding(source.device):
            if mask is None:
                out = self.encoder(patches.x, patches.grid, patches.padding_mask)
            else:
                visible, padding = mask.visible, mask.visible_padding
                out = self.encoder(patches.x, patches.grid, visible=visible, visible_padding=padding)
        if mask is None:
            return pool_patches(out, patches.grid, patches.padding_mask, self.pooling)
        return pool_patches(out, mask.grid, mask.visible_padding, self.pooling)

    def _patch_mask(self, patches: Patches) -> GridMask | None:
        """Which patches the encoder sees, while training with ``mask_time`` or ``mask_frequency``."""
        s = self.finetuning
        if not self.training or not (s.mask_time or s.mask_frequency):
            return None
        steps, rows = patches.grid
        return grid_mask(
            len(patches.x),
            (steps, rows),
            s.mask_time,
            s.mask_frequency,
            padding_mask=patches.padding_mask,
            device=patches.x.device,
        )

    def forward(self, source: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Logits of the classes, B x num_classes, float32.

        Args:
            source: what the front end takes (audio: B x S waveforms, image: B x 3 x height x width, video: B x 3 x
                frames x height x width; of any size).
            padding_mask: as ``source``, without the axis of colours; or None.
        """
        pooled = self.pooled(source, padding_mask).to(self.head.weight.dtype)
        return self.head(self.norm(pooled)).float()
