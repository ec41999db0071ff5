"""A small decoder from codes to log-mel. It shows what a frozen tokenizer keeps of the sound; it is not a codec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.code_tokenizer import CodeTokenizer
from bridle_fairseq.nn.frontend import AudioFrontEnd
from bridle_fairseq.nn.patch import patchify, unpatchify
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.nn.tokenizer import TokenizerEstimator
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.precision import autocast

DECIBELS = 10 / math.log(10)  # of a natural logarithm of power


class Reconstruction(NamedTuple):
    """Log-mel patches of a batch, and their estimates from codes."""

    estimates: list[Tensor]  # B x N x patch_dim each, normalized log-mel
    target: Tensor  # B x N x patch_dim
    valid: Tensor  # B x N x patch_dim bool: False at padding and where the last patch is filled up
    std: float  # standard deviation of the log-mel; a normalized difference of 1 is a difference of 2 std

    def absolute_error(self) -> list[Tensor]:
        """Sum of |estimate - target| over valid values, for each estimate."""
        return [((x.float() - self.target).abs() * self.valid).sum() for x in self.estimates]


class MelDecoder(nn.Module):
    """Estimates log-mel patches from the sum of the code vectors of levels 1 to k, with a few attention blocks.

    One decoder serves every k. In training, each clip keeps a random number of levels, from none (the estimate is then
    the mean log-mel) to all. Tokenizer and codebooks are frozen.

    Args:
        settings: settings of the pretrained model whose tokenizer is used.
        width: width of the decoder.
        depth: number of attention blocks.
        num_heads: attention heads of a block.

    Raises:
        InputError: the model is not for audio, or the sizes are not possible.
    """

    def __init__(self, settings: BridleSettings, width: int = 192, depth: int = 2, num_heads: int = 4) -> None:
        if depth < 1 or num_heads < 1 or width % num_heads:
            raise InputError(
                f"model.decoder_depth is {depth}, decoder_heads {num_heads} and decoder_width {width}; expected at "
                "least one block and heads that divide the width"
            )
        super().__init__()
        self.settings = settings
        self.tokenizer = CodeTokenizer(settings, with_estimator=False).requires_grad_(False).eval()
        front_end = self.tokenizer.front_end
        if not isinstance(front_end, AudioFrontEnd):
            raise InputError(f"a tokenizer of {settings.modality}; expected one of sound, whose log-mel is decoded")
        self.front_end = front_end
        self.decoder = TokenizerEstimator(settings.codebook_dim, width, depth, num_heads, front_end.patch_dim)

    @property
    def num_levels(self) -> int:
        """K."""
        return self.settings.num_codebooks

    def train(self, mode: bool = True) -> MelDecoder:
        """Set the mode, but keep the tokenizer in eval mode; fairseq's trainer calls this at every update."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    def forward(self, source: Tensor, padding_mask: Tensor | None = None) -> Reconstruction:
        """B x S waveforms -> in training one estimate, from random levels; else estimates from 0, 1, ... K levels."""
        patches = self.tokenizer.patches(source, padding_mask)
        codes = self.tokenizer.codes(patches, self.tokenizer.has_tokenizer)
        if self.training:
            levels = [torch.randint(self.num_levels + 1, (len(codes),), device=codes.device)]
        else:
            levels = [torch.full((len(codes),), k, device=codes.device) for k in range(self.num_levels + 1)]
        estimates = [self._decode(codes, patches.grid, patches.padding_mask, k) for k in levels]
        return Reconstruction(estimates, patches.x, self._valid(source, padding_mask), self.front_end.std)

    def _decode(self, codes: Tensor, grid: Sequence[int], padding_mask: Tensor | None, levels: Tensor) -> Tensor:
        """Codes B x N x K, of which each clip keeps ``levels`` (B) -> B x N x patch_dim normalized log-mel."""
        vectors = self.tokenizer.quantizer.decode(codes, levels)
        with autocast(self.settings.precision, vectors.device):
            return self.decoder(vectors, grid, padding_mask)

    def _valid(self, source: Tensor, padding_mask: Tensor | None) -> Tensor:
        """B x N x patch_dim: True at values of frames that lie within the clips."""
        log_mel = self.front_end.log_mel
        samples = torch.full((len(source),), source.shape[1], device=source.device)
        if padding_mask is not None:
            samples = samples - padding_mask.sum(1)
        frames = torch.arange(log_mel.frame_count(source.shape[1]), device=source.device)
        valid = frames < log_mel.frame_count(samples)[:, None]  # B x M
        return patchify(valid[:, None, :, None].expand(-1, 1, -1, log_mel.num_mel_bins), self.front_end.patch_size)

    @torch.no_grad()
    def log_mel(self, codes: Tensor, levels: int | None = None) -> Tensor:
        """Log-mel of clips, from their codes.

        Args:
            codes: B x N x K' long, time-major, with at least ``levels`` levels.
            levels: number of levels to decode; all by default.

        Returns:
            B x M x mel bins, natural logarithm of power.

        Raises:
            InputError: more levels than the codes or the codebooks have, or codes of incomplete time steps.
        """
        levels = codes.shape[2] if levels is None else levels
        rows = self.front_end.rows
        assert rows is not None
        if not 0 <= levels <= min(codes.shape[2], self.num_levels):
            raise InputError(f"{levels} levels of codes of {codes.shape[2]}; expected at most {self.num_levels}")
        if codes.shape[1] % rows or not codes.shape[1]:
            raise InputError(f"{codes.shape[1]} patches; expected a multiple of the {rows} of a time step")
        grid = (codes.shape[1] // rows, rows)
        kept = codes.new_zeros(*codes.shape[:2], self.num_levels)
        kept[..., :levels] = codes[..., :levels]
        estimate = self._decode(kept, grid, None, torch.full((len(codes),), levels, device=codes.device))
        bins = self.front_end.log_mel.num_mel_bins
        frames = grid[0] * self.front_end.patch_size[0]
        values = unpatchify(estimate.float(), self.front_end.patch_size, (frames, bins))[:, 0]
        return values * (2 * self.front_end.std) + self.front_end.mean
