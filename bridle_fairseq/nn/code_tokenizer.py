"""From inputs to codes: front end, tokenizer T, residual quantizer RQ and tokenizer estimator TE (docs/method.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.frontend import Patches, front_end_of
from bridle_fairseq.nn.running_norm import RunningNorm
from bridle_fairseq.nn.settings import BridleSettings, check_settings
from bridle_fairseq.nn.tokenizer import RandomProjection, TokenizerEncoder, TokenizerEstimator
from bridle_fairseq.quantization.residual import ResidualQuantizer
from bridle_fairseq.utils.precision import autocast, autocast_codes


class CodeTokenizer(nn.Module):
    """The part of the model that makes codes, and estimates the encoder's features from codes.

    The codebooks quantize T's outputs, or the random projection's in a cold start: ``tokenizer_ready`` says which.

    Args:
        settings: sizes and options.
        with_estimator: False leaves out TE, for codes alone.

    Raises:
        InputError: settings that are not possible.
    """

    estimator: TokenizerEstimator | None
    tokenizer_ready: Tensor

    def __init__(self, settings: BridleSettings, with_estimator: bool = True) -> None:
        check_settings(settings)
        super().__init__()
        self.settings = settings
        self.front_end = front_end_of(settings)
        self._build(with_estimator)
        # True: the codebooks quantize T's outputs. False: the random projection's, even if T was trained earlier.
        self.register_buffer("tokenizer_ready", torch.tensor(False))
        self._ready_cache: bool | None = None  # avoids a device synchronization in every update

    def _build(self, with_estimator: bool) -> None:
        """Build the modules, in a subclass together with its own (:class:`bridle_fairseq.nn.bridle.Bridle`).

        Do not reorder: random draws, the optimizer's state (by position) and state-dict keys follow this order.
        """
        s, patch_dim, width = self.settings, self.front_end.patch_dim, self.settings.encoder_width
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
            num_books=s.num_books,
        )
        sizes = (s.codebook_dim, width, s.estimator_depth, s.encoder_heads, width)
        self.estimator = TokenizerEstimator(*sizes) if with_estimator else None
        self.projection = RandomProjection(patch_dim, width, s.codebook_dim, s.position_scale)
        self.latent_norm = RunningNorm(s.codebook_dim, s.latents)
        self.teacher_norm = RunningNorm(width, s.teacher)

    @property
    def has_tokenizer(self) -> bool:
        """``tokenizer_ready`` as a Python bool, cached on the host."""
        if self._ready_cache is None:
            self._ready_cache = bool(self.tokenizer_ready)
        return self._ready_cache

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._ready_cache = None
        super()._load_from_state_dict(*args, **kwargs)

    def _statistics_padding(self, patches: Patches) -> Tensor | None:
        """B x N: patches that do not count for running statistics, or None."""
        return patches.padding_mask

    def patches(self, source: Tensor, padding_mask: Tensor | None = None) -> Patches:
        """Patches of a batch as :meth:`codes` takes them; arguments as in :meth:`tokenize`."""
        with_centred = self.settings.target_norm != "none" and not self.has_tokenizer
        return self.front_end(source, padding_mask, with_centred=with_centred)

    def latents(self, patches: Patches, from_tokenizer: bool, collect: bool = False) -> Tensor:
        """The vectors to quantize, B x N x codebook_dim: T's normalized outputs, or the random projection's outputs.

        ``collect``: update the running statistics of T's outputs with this batch.
        """
        if not from_tokenizer:
            return self._projected(patches)
        x = self.tokenizer(patches.x, patches.grid, patches.padding_mask)
        return self.latent_norm(x, self._statistics_padding(patches), collect=collect)

    def _projected(self, patches: Patches, places: Tensor | None = None) -> Tensor:
        """Random projection of all patches, B x N x codebook_dim; with ``places`` (B x Q), (B * Q) x codebook_dim."""
        with torch.autocast(patches.x.device.type, enabled=False):
            inputs = patches.x if self.settings.target_norm == "none" else patches.centred
            assert inputs is not None, "patches of the front end alone; expected those of CodeTokenizer.patches"
            x = self.projection(inputs, patches.grid, places)
        return x if places is None else x.flatten(0, 1)

    @torch.no_grad()
    def _latents_for_codes(self, patches: Patches, from_tokenizer: bool) -> Tensor:
        with autocast_codes(self.settings.precision, self.settings.codes_precision, patches.x.device):
            return self.latents(patches, from_tokenizer)

    @torch.no_grad()
    def codes(self, patches: Patches, from_tokenizer: bool, codes_per_level: int = 1) -> Tensor:
        """Codes of all patches, B x N x K (B x N x K x m for m > 1), without gradient."""
        latents = self._latents_for_codes(patches, from_tokenizer)
        return self.quantizer.encode(latents, self._statistics_padding(patches), codes_per_level=codes_per_level)

    @torch.no_grad()
    def tokenize(
        self, source: Tensor, padding_mask: Tensor | None = None, codes_per_level: int = 1
    ) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Codes of a batch: B x N x K (x m), the padding mask of patches (B x N or None), and the grid.

        Args:
            source: input of the front end (audio: B x S waveforms; image: B x 3 x height x width; video: B x 3 x frames
                x height x width).
            padding_mask: as ``source`` without the channel axis, or None.
            codes_per_level: m nearest codes of each level.
        """
        patches = self.patches(source, padding_mask)
        codes = self.codes(patches, self.has_tokenizer, codes_per_level)
        return codes, patches.padding_mask, patches.grid

    @torch.no_grad()
    def decode(self, codes: Tensor, grid: Sequence[int], padding_mask: Tensor | None = None) -> Tensor:
        """Encoder features estimated from codes: B x N x K -> B x N x D.

        They match in direction only, and with ``teacher`` "standardize" or "center" they match normalized features.
        """
        assert self.estimator is not None
        quantized = self.quantizer.decode(codes)  # B x N x codebook_dim
        with autocast(self.settings.precision, quantized.device):
            return self.estimator(quantized, grid, padding_mask)
