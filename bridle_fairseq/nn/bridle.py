"""The method: encoder and decoder learn to predict codes, the tokenizer learns from the encoder (docs/method.md)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.code_tokenizer import CodeTokenizer
from bridle_fairseq.nn.decoder import decoder_of
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.frontend import Patches
from bridle_fairseq.nn.losses import CodeLoss, TokenizerLoss, code_loss, cosine_loss, valid_count
from bridle_fairseq.nn.masking import MASKINGS, choose_targets
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.nn.tokenizer import TokenizerEstimator
from bridle_fairseq.nn.transformer import recompute_blocks
from bridle_fairseq.utils.precision import autocast


class StepOutput(NamedTuple):
    """Result of one forward pass in training or validation."""

    loss: Tensor  # scalar, a sum over `sample_size` patches
    sample_size: Tensor  # scalar on the device; reading it synchronizes
    encoder: CodeLoss | None
    tokenizer: TokenizerLoss | None


class Bridle(CodeTokenizer):
    """Encoder E and decoder D, and with them the tokenizer T, quantizer RQ and estimator TE of a code tokenizer.

    Args:
        settings: sizes and options.

    Attributes:
        dummy_batch: the batch only keeps this rank in step with the others. It takes part in collectives, but none of
            its vectors count.

    Raises:
        InputError: settings that are not possible.
    """

    estimator: TokenizerEstimator

    def __init__(self, settings: BridleSettings) -> None:
        super().__init__(settings)
        self.dummy_batch = False
        if settings.checkpoint_activations:
            recompute_blocks(self)

    def _build(self, with_estimator: bool) -> None:
        """Encoder and decoder, then the modules of the code tokenizer: see :meth:`CodeTokenizer._build`."""
        s = self.settings
        self.encoder = Encoder(self.front_end.patch_dim, s.encoder_width, s.encoder_depth, s.encoder_heads)
        self.decoder = decoder_of(s)
        super()._build(with_estimator)

    # -- stages ------------------------------------------------------------------------------------------------------

    def trained_parts(self, stage: Stage, stage_update: int | None = None) -> list[nn.Module]:
        """The modules whose parameters learn in a stage, or in its update ``stage_update`` (from 0).

        The quantizer is not among them: its codebooks are buffers, which :meth:`commit` updates.
        """
        parts: list[nn.Module] = []
        if stage.trains_encoder:
            parts += [self.encoder, self.decoder]
        if stage.trains_tokenizer and (stage_update is None or self.uses_tokenizer_loss(stage, stage_update)):
            parts += [self.tokenizer, self.estimator]
        return parts

    @staticmethod
    def uses_tokenizer_loss(stage: Stage, stage_update: int) -> bool:
        """Whether update ``stage_update`` of the stage (from 0) includes the tokenizer's loss."""
        if stage.kind == "joint":
            return stage_update % stage.tokenizer_every == stage.tokenizer_every - 1
        return stage.kind == "tokenizer"

    @torch.no_grad()
    def begin_stage(self, stage: Stage) -> None:
        """Initialize tokenizer and codebooks before the first update of a stage.

        A tokenizer stage initializes T (``tokenizer_init``). Tokenizer and joint stages start with new codebooks. An
        encoder stage resets the codebooks if they were fitted to the other kind of vectors: T's outputs or the random
        projection's.

        Random numbers come from the global generator, which must be in the same state on all ranks.
        """
        if stage.trains_tokenizer:
            if stage.kind == "tokenizer":
                self._init_tokenizer()
            self.quantizer.reset()
            quantizes_tokenizer = True
        else:
            quantizes_tokenizer = self._targets_from_tokenizer(stage)
            if quantizes_tokenizer != self.has_tokenizer:
                self.quantizer.reset()
        self.tokenizer_ready.fill_(quantizes_tokenizer)
        self._ready_cache = quantizes_tokenizer

    def _init_tokenizer(self) -> None:
        init = self.settings.tokenizer_init
        if init == "continue" and self.has_tokenizer:
            return  # T, TE and the running averages stay
        # also under "continue", if the codebooks quantize the projection
        if init == "random":
            self.tokenizer.reset_parameters()
        else:
            self.tokenizer.init_from_encoder(self.encoder)
        self.estimator.reset_parameters()
        self.latent_norm.reset()
        self.teacher_norm.reset()

    def _targets_from_tokenizer(self, stage: Stage) -> bool:
        if stage.targets == "auto":
            return self.has_tokenizer  # what the codebooks quantize already, even if T was trained before that
        return stage.targets == "tokenizer"

    def commit(self) -> None:
        """After each optimizer update: update codebooks and running averages from the batches. Collective."""
        self.quantizer.commit()
        self.latent_norm.commit()
        self.teacher_norm.commit()

    def discard(self) -> None:
        """Drop the batch statistics of an update that was skipped."""
        self.quantizer.discard()
        self.latent_norm.discard()
        self.teacher_norm.discard()

    # -- losses ------------------------------------------------------------------------------------------------------

    def _autocast(self, device: torch.device) -> AbstractContextManager[None]:
        return autocast(self.settings.precision, device)

    def _statistics_padding(self, patches: Patches) -> Tensor | None:
        if self.dummy_batch:
            return torch.ones(patches.x.shape[:2], dtype=torch.bool, device=patches.x.device)
        return patches.padding_mask

    def _mask_generator(self, device: torch.device) -> torch.Generator | None:
        """Training draws masks from the global generator; every validation uses the same masks."""
        return None if self.training else torch.Generator(device).manual_seed(0)

    def _target_latents(self, patches: Patches, stage: Stage) -> Tensor | None:
        """T's outputs at all patches, B x N x codebook_dim; None in a cold start.

        A cold start projects only the targets, in :meth:`encoder_loss`. Its first training batch also projects all
        patches here, to initialize the codebooks.
        """
        from_tokenizer = stage.kind == "joint" or self._targets_from_tokenizer(stage)
        must_init = self.training and not self.quantizer.initialized
        if not (from_tokenizer or must_init):
            return None
        latents = self._latents_for_codes(patches, from_tokenizer)
        if must_init:
            self.quantizer.init_codebooks_if_needed(latents, self._statistics_padding(patches))
        return latents if from_tokenizer else None

    def encoder_loss(
        self,
        patches: Patches,
        codes: Tensor | None,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
    ) -> CodeLoss:
        """Mask patches, encode the visible ones, predict the codes of the masked ones.

        In training, each clip gets ``num_masks`` different masks. They share file decoding, front end and codes.

        Args:
            patches: the batch.
            codes: B x N x K, or B x N x K x m; None: look up those of ``latents``, at the targets only.
            generator: for the mask; None uses the global one.
            latents: B x N x codebook_dim; None: the random projection of the cold start.
        """
        s = self.settings
        if self.training and s.num_masks > 1:
            patches = patches.repeated(s.num_masks)
            codes, latents = (None if x is None else torch.cat([x] * s.num_masks) for x in (codes, latents))
        mask = MASKINGS[s.masking](
            patches.x.shape[0],
            patches.grid,
            s.mask_ratio,
            padding_mask=patches.padding_mask,
            device=patches.x.device,
            generator=generator,
        )
        targets = choose_targets(mask, s.predict_share, generator)
        with self._autocast(patches.x.device):
            x = self.encoder(patches.x, patches.grid, visible=mask.visible, visible_padding=mask.visible_padding).x
            # B x V x D (V visible patches) -> P x K x C, P = B * Q (Q targets of each clip)
            logits = self.decoder(x, mask, targets, patches.grid, patches.padding_mask)
        if codes is None:
            vectors = self._projected(patches, targets.places) if latents is None else targets.of(latents)
            padding = torch.ones_like(logits[:, 0, 0], dtype=torch.bool) if self.dummy_batch else targets.flat_padding
            expected = self.quantizer.encode(vectors, padding, s.codes_per_level)  # P x K, or P x K x m
        else:
            expected = targets.of(codes)
        return code_loss(logits, expected, targets.flat_padding)

    def tokenizer_loss(self, patches: Patches) -> TokenizerLoss:
        """Quantize T's outputs and estimate E's features of all patches from them; E gets no gradient."""
        padding = self._statistics_padding(patches)
        with self._autocast(patches.x.device):
            with torch.no_grad():
                target = self.encoder(patches.x, patches.grid, patches.padding_mask).x  # B x N x D
                target = self.teacher_norm(target, padding, collect=True)
            latents = self.latents(patches, from_tokenizer=True, collect=True)  # B x N x codebook_dim
            quantized = self.quantizer(latents, padding)
            estimate = self.estimator(quantized.quantized, patches.grid, patches.padding_mask)  # B x N x D
        distance = cosine_loss(estimate, target, patches.padding_mask)
        count = valid_count(patches.x[..., 0], patches.padding_mask)
        return TokenizerLoss(
            loss=distance + count * quantized.loss,
            cosine=count - distance.detach(),  # distance sums 1 - cos over the patches
            quantized=quantized,
            num_patches=count,
        )

    def forward(
        self,
        source: Tensor,
        padding_mask: Tensor | None,
        stage: Stage,
        stage_update: int = 0,
        codes: Tensor | None = None,
    ) -> StepOutput:
        """Loss of a batch in a stage.

        Args:
            source: input of the front end (audio: B x S waveforms; image: B x 3 x height x width; video: B x 3 x frames
                x height x width).
            padding_mask: as ``source`` without the channel axis, or None.
            stage: the stage.
            stage_update: number of this update within the stage, from 0 (joint: which updates train the tokenizer).
            codes: B x N x K cached targets of an encoder stage; None: compute them.
        """
        patches = self.patches(source, padding_mask)
        # Validation of a joint stage reports both losses, after any update.
        with_tokenizer = self.uses_tokenizer_loss(stage, stage_update) or (stage.kind == "joint" and not self.training)
        tokenizer = self.tokenizer_loss(patches) if with_tokenizer else None
        if not stage.trains_encoder:
            assert tokenizer is not None
            return StepOutput(tokenizer.loss, tokenizer.num_patches, None, tokenizer)
        latents = None
        if codes is None:
            if tokenizer is not None and self.settings.codes_per_level == 1:
                codes = tokenizer.quantized.codes  # of the same T and codebooks: not computed twice
            else:
                latents = self._target_latents(patches, stage)
        encoder = self.encoder_loss(patches, codes, self._mask_generator(source.device), latents)
        loss = encoder.loss
        if tokenizer is not None:
            mean = tokenizer.loss / tokenizer.num_patches.clamp(min=1)
            loss = loss + stage.tokenizer_weight * encoder.num_patches * mean
        return StepOutput(loss, encoder.num_patches, encoder, tokenizer)

    # -- use ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def extract_features(
        self, source: Tensor, padding_mask: Tensor | None = None, layer: int | None = None
    ) -> dict[str, Any]:
        """Features of all patches, without masking.

        Args:
            source, padding_mask: as in :meth:`forward`.
            layer: None for the normalized last layer, else the output of a block, numbered from 1.

        Returns:
            ``x`` B x N x D, ``class_token`` B x D, ``padding_mask`` B x N or None, ``grid``.
        """
        patches = self.front_end(source, padding_mask)
        with self._autocast(patches.x.device):
            out = self.encoder(patches.x, patches.grid, patches.padding_mask, with_layers=layer is not None)
        x = out.x if layer is None else out.layers[layer - 1]
        return {"x": x, "class_token": out.class_token, "padding_mask": patches.padding_mask, "grid": patches.grid}
