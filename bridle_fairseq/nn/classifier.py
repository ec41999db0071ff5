"""A classifier: pretrained encoder, pooling, a norm and one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from bridle_fairseq.nn.batch_augment import warp_time
from bridle_fairseq.nn.frontend import Patches
from bridle_fairseq.nn.masking import GridMask, grid_mask
from bridle_fairseq.nn.pooling import pool_patches, pooled_width
from bridle_fairseq.nn.pooling_kinds import POOLINGS
from bridle_fairseq.nn.pretrained_encoder import ClassifierRegularization, PretrainedEncoder, check_classifier
from bridle_fairseq.nn.settings import BridleSettings, check_settings
from bridle_fairseq.utils.errors import InputError


def class_scores(logits: Tensor, multi_label: bool) -> Tensor:
    """Logits -> probabilities, B x classes: of each class independently, or a distribution over the classes."""
    return logits.sigmoid() if multi_label else logits.softmax(1)


class Classifier(PretrainedEncoder):
    """Encoder, pooling, norm, linear head.

    Args:
        settings: settings of the pretrained model.
        num_classes: number of outputs.
        pooling: see :func:`pool_patches`.
        freeze_encoder: only norm and head learn.
        regularization: regularization of training; none by default.

    Raises:
        InputError: an unknown pooling, or settings that are not possible.
    """

    regularization: ClassifierRegularization

    def __init__(
        self,
        settings: BridleSettings,
        num_classes: int,
        pooling: str = "mean",
        freeze_encoder: bool = False,
        regularization: ClassifierRegularization | None = None,
    ) -> None:
        check_settings(settings)
        if pooling not in POOLINGS:
            raise InputError(f"model.pooling is {pooling!r}; expected one of {', '.join(POOLINGS)}")
        regularization = regularization or ClassifierRegularization()
        check_classifier(regularization, pooling, freeze_encoder, settings.modality)
        super().__init__(settings, regularization, freeze_encoder)
        self.pooling = pooling
        width = pooled_width(self.front_end, settings.encoder_width, pooling)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def pooled(self, source: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """The pooled features that :meth:`forward` classifies, B x width, float32."""
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

    def augment(self, x: Tensor, frame_padding: Tensor | None) -> Tensor:
        """:meth:`PretrainedEncoder.augment`, after other rates."""
        if largest := self.regularization.warp_time:
            x = warp_time(x.squeeze(1), frame_padding, largest).unsqueeze(1)
        return super().augment(x, frame_padding)

    def _patch_mask(self, patches: Patches) -> GridMask | None:
        """The patches to encode, in training with ``mask_time`` or ``mask_frequency``; None for all of them."""
        s = self.regularization
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
            source: input of the front end (audio: B x S waveforms, image: B x 3 x height x width, video: B x 3 x frames
                x height x width; of any size).
            padding_mask: as ``source`` without the channel axis, or None.
        """
        pooled = self.pooled(source, padding_mask).to(self.head.weight.dtype)
        return self.head(self.norm(pooled)).float()
