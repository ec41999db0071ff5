"""The decoder: predicts the codes of hidden patches from the encoder's view of the visible ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.attention import Attention, BandLayout, WindowAttention
from bridle_fairseq.nn.masking import Mask
from bridle_fairseq.nn.position import sincos_position
from bridle_fairseq.nn.transformer import Block, init_weights


class Decoder(nn.Module):
    """Mask tokens put back in place, attention blocks, one linear head for all levels.

    Args:
        encoder_width: width of the encoder's output.
        width: D of the decoder.
        depth: blocks.
        num_heads: H; must divide ``width``.
        num_codebooks, codebook_size: K, C; the head has K * C logits.
        window: None for global attention, else patches of a local window in time and frequency: every second block's
            windows are then shifted in time by half a window.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        depth: int,
        num_heads: int,
        num_codebooks: int,
        codebook_size: int,
        window: Sequence[int] | None = None,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.width, self.window = width, tuple(window) if window else None
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList([Block(width, self._attention(num_heads, i), mlp_ratio) for i in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_codebooks * codebook_size)
        self.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def _attention(self, num_heads: int, index: int) -> nn.Module:
        if self.window is None:
            return Attention(self.width, num_heads)
        return WindowAttention(self.width, num_heads, self.window, shift=self.window[0] // 2 if index % 2 else 0)

    def forward(self, x: Tensor, mask: Mask, grid: Sequence[int], padding_mask: Tensor | None = None) -> Tensor:
        """Logits at the masked patches, clip after clip.

        Args:
            x: B x V x encoder_width, the encoder's output at the visible patches.
            mask: the split that the encoder saw.
            grid: patches along each axis.
            padding_mask: B x N.

        Returns:
            P x K x C, P the number of masked patches of the batch (``mask.masked.sum()``).
        """
        x = self._fill(self.embed(x), mask)
        x = x + sincos_position(grid, self.width, like=x)
        layout = BandLayout(grid, self.window) if self.window else None
        if layout is not None:
            padding_mask = layout.padding(padding_mask, x.shape[0], x.device)
            x = layout.to_bands(x)
        for block in self.blocks:
            x = block(x, padding_mask)
        if layout is not None:
            x = layout.from_bands(x)
        # Only what is predicted goes through the norm and the head.
        return self.head(self.norm(x[mask.masked])).unflatten(-1, (self.num_codebooks, self.codebook_size))

    def _fill(self, x: Tensor, mask: Mask) -> Tensor:
        """B x V x D at the visible places of B x N x D, the mask token elsewhere."""
        batch, num_patches = mask.masked.shape
        index = mask.visible
        if mask.visible_padding is not None:
            index = index.masked_fill(mask.visible_padding, num_patches)  # a place past the end takes what is no patch
        full = self.mask_token.to(x.dtype).expand(batch, num_patches + 1, -1)
        return full.scatter(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]), x)[:, :num_patches]
