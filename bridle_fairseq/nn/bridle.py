"""The method: encoder and decoder learn from codes, the tokenizer learns from the encoder (METHOD, sections 1 to 4)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.decoders import decoder_of
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.frontend import Patches, front_end_of
from bridle_fairseq.nn.losses import CodeLoss, TokenizerLoss, code_loss, cosine_loss, valid_count
from bridle_fairseq.nn.masking import MASKINGS, choose_targets
from bridle_fairseq.nn.running_norm import RunningStandardizer
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings, check_settings
from bridle_fairseq.nn.tokenizer import RandomProjection, TokenizerEncoder, TokenizerEstimator
from bridle_fairseq.nn.transformer import recompute_blocks
from bridle_fairseq.quantization.residual import ResidualQuantizer
from bridle_fairseq.utils.precision import autocast, autocast_codes


class StepOutput(NamedTuple):
    """One forward pass of training or validation."""

    loss: Tensor  # scalar, a sum over `sample_size` patches
    sample_size: Tensor  # scalar; on the device: whoever asks for the number waits
    encoder: CodeLoss | None
    tokenizer: TokenizerLoss | None


class Bridle(nn.Module):
    """Encoder E, decoder D, tokenizer T, residual quantizer RQ and tokenizer estimator TE.

    Args:
        settings: sizes and choices.

    Raises:
        InputError: settings that cannot work.
    """

    tokenizer_ready: Tensor

    def __init__(self, settings: BridleSettings) -> None:
        check_settings(settings)
        super().__init__()
        s = self.settings = settings
        self.front_end = front_end_of(s)
        patch_dim, width = self.front_end.patch_dim, s.encoder_width
        self.encoder = Encoder(patch_dim, width, s.encoder_depth, s.encoder_heads)
        self.decoder = decoder_of(s)
        self.tokenizer = TokenizerEncoder(Encoder(patch_dim, width, s.tokenizer_depth, s.encoder_heads), s.codebook_dim)
        self.quantizer = ResidualQuantizer(
            s.codebook_dim,
            s.num_codebooks,
            s.codebook_size,
            metric=s.codebook_metric,
            decay=s.codebook_decay,
            commitment_weight=s.commitment_weight,
            init=s.codebook_init,
            restart_threshold=s.restart_threshold,
            restart_step=s.restart_step,
        )
        self.estimator = TokenizerEstimator(s.codebook_dim, width, s.estimator_depth, s.encoder_heads, width)
        self.projection = RandomProjection(patch_dim, width, s.codebook_dim, s.position_scale)
        self.latent_norm = RunningStandardizer(s.codebook_dim, s.latents)
        self.teacher_norm = RunningStandardizer(width, s.teacher)
        # Whether the codebooks are of T's outputs, in this run or in the one it started from; else of the projection's.
        self.register_buffer("tokenizer_ready", torch.tensor(False))
        self._known_ready: bool | None = None  # spares a look at the device's `tokenizer_ready` in every update
        if s.checkpoint_activations:
            recompute_blocks(self)
        # A batch that only keeps this rank in step with the others: it takes part in collectives and brings no vector.
        self.dummy_batch = False

    # -- parts -------------------------------------------------------------------------------------------------------

    def trained_parts(self, stage: Stage, num_updates: int | None = None) -> list[nn.Module]:
        """The modules that learn in a stage, or in its update ``num_updates`` (counted from the stage's start)."""
        parts: list[nn.Module] = []
        if stage.trains_encoder:
            parts += [self.encoder, self.decoder]
        if stage.trains_tokenizer and (num_updates is None or self.uses_tokenizer_loss(stage, num_updates)):
            parts += [self.tokenizer, self.estimator]
        return parts

    @staticmethod
    def uses_tokenizer_loss(stage: Stage, num_updates: int) -> bool:
        """Whether update ``num_updates`` of the stage (from 0) has the tokenizer's loss."""
        if stage.kind == "joint":
            return num_updates % stage.tokenizer_every == stage.tokenizer_every - 1
        return stage.kind == "tokenizer"

    @torch.no_grad()
    def begin_stage(self, stage: Stage) -> None:
        """What happens once, before the first update of a stage: new codebooks, and a new start of the tokenizer.

        Random numbers come from the global generator, which must be in the same state on all ranks.
        """
        if stage.trains_tokenizer:
            if stage.kind == "tokenizer":
                self._start_tokenizer()
            self.quantizer.reset()
            ready = True
        else:
            ready = self._targets_from_tokenizer(stage)
            if ready != self.has_tokenizer:  # codebooks of other vectors; those of the same ones go on
                self.quantizer.reset()
        self.tokenizer_ready.fill_(ready)
        self._known_ready = ready

    def _start_tokenizer(self) -> None:
        how = self.settings.tokenizer_init
        if how == "continue" and self.has_tokenizer:
            return
        if how == "random":
            self.tokenizer.start_anew()
        else:
            self.tokenizer.start_from(self.encoder)
        self.estimator.start_anew()
        self.latent_norm.reset()
        self.teacher_norm.reset()

    def commit(self) -> None:
        """After each optimizer update, on every rank: batch statistics become codebooks and averages. Collective."""
        self.quantizer.commit()
        self.latent_norm.commit()
        self.teacher_norm.commit()

    def discard(self) -> None:
        """Forget batch statistics of an update that did not take place."""
        self.quantizer.discard()
        self.latent_norm.discard()
        self.teacher_norm.discard()

    def _autocast(self, device: torch.device) -> AbstractContextManager[None]:
        return autocast(self.settings.precision, device)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the codebooks are of T's outputs: ``tokenizer_ready``, as the host knows it."""
        if self._known_ready is None:
            self._known_ready = bool(self.tokenizer_ready)
        return self._known_ready

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._known_ready = None
        super()._load_from_state_dict(*args, **kwargs)

    # -- codes -------------------------------------------------------------------------------------------------------

    def _targets_from_tokenizer(self, stage: Stage) -> bool:
        if stage.targets == "auto":
            return self.has_tokenizer
        return stage.targets == "tokenizer"

    def _statistics_padding(self, patches: Patches) -> Tensor | None:
        if self.dummy_batch:
            return torch.ones(patches.x.shape[:2], dtype=torch.bool, device=patches.x.device)
        return patches.padding_mask

    def latents(self, patches: Patches, from_tokenizer: bool, collect: bool = False) -> Tensor:
        """What is quantized, B x N x codebook_dim: T's outputs, or the cold start's random projection.

        ``collect``: the batch counts for the running statistics of T's outputs.
        """
        if not from_tokenizer:
            return self._projected(patches)
        x = self.tokenizer(patches.x, patches.grid, patches.padding_mask)
        return self.latent_norm(x, self._statistics_padding(patches), collect=collect)

    def _projected(self, patches: Patches, places: Tensor | None = None) -> Tensor:
        """The cold start's vectors of all patches, or clip after clip of those at ``places``."""
        with torch.autocast(patches.x.device.type, enabled=False):
            x = self.projection(patches.x, patches.grid, places)
        return x if places is None else x.flatten(0, 1)

    @torch.no_grad()
    def codes(self, patches: Patches, from_tokenizer: bool, codes_per_level: int = 1) -> Tensor:
        """Codes of all patches, B x N x K (B x N x K x m for m > 1), without gradient."""
        latents = self._latents_for_codes(patches, from_tokenizer)
        return self.quantizer.encode(latents, self._statistics_padding(patches), codes_per_level=codes_per_level)

    @torch.no_grad()
    def _latents_for_codes(self, patches: Patches, from_tokenizer: bool) -> Tensor:
        with autocast_codes(self.settings.precision, self.settings.codes_precision, patches.x.device):
            return self.latents(patches, from_tokenizer)

    def _latents_to_look_up(self, patches: Patches, stage: Stage) -> Tensor | None:
        """T's outputs at all patches. None in a cold start, whose vectors are made one by one: at the targets, later.

        The first time in training, codebooks start from the vectors of all patches.
        """
        from_tokenizer = stage.kind == "joint" or self._targets_from_tokenizer(stage)
        start = self.training and not self.quantizer.known_started
        if not (from_tokenizer or start):
            return None
        latents = self._latents_for_codes(patches, from_tokenizer)
        if start:
            self.quantizer.start_if_needed(latents, self._statistics_padding(patches))
        return latents if from_tokenizer else None

    # -- losses ------------------------------------------------------------------------------------------------------

    def encoder_loss(
        self,
        patches: Patches,
        codes: Tensor | None,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
    ) -> CodeLoss:
        """Hide patches, encode the others, predict the codes of the hidden ones.

        While training, each clip is hidden ``num_masks`` times, by masks of its own: what came before (decoding, front
        end, codes) is not done again.

        Args:
            patches: the batch.
            codes: B x N x K, or B x N x K x m; None: those of ``latents``.
            generator: of the mask; None takes the global one.
            latents: B x N x codebook_dim; None: the cold start's. Only what is to be predicted is looked up in the
                codebooks.
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
            logits = self.decoder(x, mask, targets, patches.grid, patches.padding_mask)
        if codes is None:
            sought = self._projected(patches, targets.places) if latents is None else targets.of(latents)
            padding = torch.ones_like(logits[:, 0, 0], dtype=torch.bool) if self.dummy_batch else targets.flat_padding
            expected = self.quantizer.encode(sought, padding, s.codes_per_level)
        else:
            expected = targets.of(codes)
        return code_loss(logits, expected, targets.flat_padding)

    def tokenizer_loss(self, patches: Patches) -> TokenizerLoss:
        """Quantize T's outputs and estimate the encoder's features from them (E gets no gradient)."""
        padding = self._statistics_padding(patches)
        with self._autocast(patches.x.device):
            with torch.no_grad():
                target = self.encoder(patches.x, patches.grid, patches.padding_mask).x
                target = self.teacher_norm(target, padding, collect=True)
            latents = self.latents(patches, from_tokenizer=True, collect=True)
            quantized = self.quantizer(latents, padding)
            estimate = self.estimator(quantized.quantized, patches.grid, patches.padding_mask)
        distance = cosine_loss(estimate, target, patches.padding_mask)
        count = valid_count(patches.x[..., 0], patches.padding_mask)
        return TokenizerLoss(distance + count * quantized.loss, count - distance.detach(), quantized, count)

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
            source: what the front end takes (audio: B x S waveforms; image: B x 3 x height x width; video: B x 3 x
                frames x height x width).
            padding_mask: as ``source``, without the axis of colours; or None.
            stage: the stage.
            stage_update: number of this update within the stage, from 0 (joint: which updates train the tokenizer).
            codes: B x N x K cached targets of an encoder stage; None asks the tokenizer.
        """
        patches = self.front_end(source, padding_mask)
        # Validation of a joint stage sees both losses, whichever update it follows.
        both = self.uses_tokenizer_loss(stage, stage_update) or (stage.kind == "joint" and not self.training)
        tokenizer = self.tokenizer_loss(patches) if both else None
        if not stage.trains_encoder:
            assert tokenizer is not None
            return StepOutput(tokenizer.loss, tokenizer.num_patches, None, tokenizer)
        latents = None
        if codes is None:
            if tokenizer is not None and self.settings.codes_per_level == 1:
                codes = tokenizer.quantized.codes  # the same T and codebooks: nothing is computed twice
            else:
                latents = self._latents_to_look_up(patches, stage)
        encoder = self.encoder_loss(patches, codes, self._mask_generator(source.device), latents)
        loss = encoder.loss
        if tokenizer is not None:
            mean = tokenizer.loss / tokenizer.num_patches.clamp(min=1)
            loss = loss + stage.tokenizer_weight * encoder.num_patches * mean
        return StepOutput(loss, encoder.num_patches, encoder, tokenizer)

    def _mask_generator(self, device: torch.device) -> torch.Generator | None:
        """Training masks follow the global generator; validation masks are the same at every validation."""
        return None if self.training else torch.Generator(device).manual_seed(0)

    # -- use ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def tokenize(
        self, source: Tensor, padding_mask: Tensor | None = None, codes_per_level: int = 1
    ) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Codes of whole inputs: B x N x K (x m), the padding of patches (B x N or None), and the grid."""
        patches = self.front_end(source, padding_mask)
        codes = self.codes(patches, self.has_tokenizer, codes_per_level)
        return codes, patches.padding_mask, patches.grid

    @torch.no_grad()
    def extract_features(
        self, source: Tensor, padding_mask: Tensor | None = None, layer: int | None = None
    ) -> dict[str, Tensor | tuple[int, ...] | None]:
        """Features of all patches, nothing hidden.

        Args:
            source, padding_mask: as in :meth:`forward`.
            layer: None for the normalised last layer, else the output of a block, numbered from 1.

        Returns:
            ``x`` B x N x D, ``class_token`` B x D, ``padding_mask`` B x N or None, ``grid``.
        """
        patches = self.front_end(source, padding_mask)
        with self._autocast(patches.x.device):
            out = self.encoder(patches.x, patches.grid, patches.padding_mask, with_layers=layer is not None)
        x = out.x if layer is None else out.layers[layer - 1]
        return {"x": x, "class_token": out.class_token, "padding_mask": patches.padding_mask, "grid": patches.grid}


def tokenizer_alone(settings: BridleSettings) -> Bridle:
    """A :class:`Bridle` that makes codes and estimates features from them; it has neither encoder nor decoder."""
    alone = Bridle(replace(settings, encoder_depth=1, decoder_depth=1))  # what is left out is built as small as can be
    alone.encoder = alone.decoder = None  # type: ignore[assignment]
    return alone.requires_grad_(False).eval()
