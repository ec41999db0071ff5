"""Decoders predict the codes of hidden patches from the encoder's view of the visible ones; here that of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.attention import Attention, BandLayout, WindowAttention
from bridle_fairseq.nn.masking import Mask, Targets
from bridle_fairseq.nn.position import sincos_position
from bridle_fairseq.nn.transformer import Block, init_weights


class CodeDecoder(nn.Module):
    """What all decoders share: a linear map into them, a mask token, blocks, and one linear head for all levels.

    Args:
        encoder_width: width of the encoder's output.
        width: D of the decoder.
        depth: blocks.
        num_codebooks, codebook_size: K, C; the head has K * C logits.
        make_block: the block of a number, from 0.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        depth: int,
        num_codebooks: int,
        codebook_size: int,
        make_block: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.width = width
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList([make_block(number) for number in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_codebooks * codebook_size)
        self.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, x: Tensor, mask: Mask, targets: Targets, grid: Sequence[int], padding_mask: Tensor | None = None
    ) -> Tensor:
        """Logits at the targets, clip after clip.

        Args:
            x: B x V x encoder_width, the encoder's output at the visible patches.
            mask: the split that the encoder saw.
            targets: masked patches to predict.
            grid: patches along each axis.
            padding_mask: B x N.

        Returns:
            P x K x C, P = B * Q, with what ``targets.flat_padding`` says is none.
        """
        raise NotImplementedError

    def _on_grid(self, x: Tensor, mask: Mask, grid: Sequence[int]) -> Tensor:
        """The encoder's output at its places of the grid, the mask token elsewhere, and positions: B x N x D."""
        x = self._fill(self.embed(x), mask)
        return x + sincos_position(grid, self.width, like=x)

    def _tokens(self, x: Tensor, mask: Mask, targets: Targets, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The encoder's output, B x V x D, and a mask token for each target, B x Q x D, with their positions."""
        seen = self.embed(x)
        position = sincos_position(grid, self.width, like=seen)
        return seen + position[mask.visible], self.mask_token.to(seen.dtype) + position[targets.places]

    def _fill(self, x: Tensor, mask: Mask) -> Tensor:
        """B x V x D at the visible places of B x N x D, the mask token elsewhere."""
        batch, num_patches = mask.masked.shape
        index = mask.visible
        if mask.visible_padding is not None:
            index = index.masked_fill(mask.visible_padding, num_patches)  # a place past the end takes what is no patch
        full = self.mask_token.to(x.dtype).expand(batch, num_patches + 1, -1)
        return full.scatter(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]), x)[:, :num_patches]

    def _predict(self, x: Tensor) -> Tensor:
        """P x D -> P x K x C. Only what is predicted goes through the norm and the head."""
        return self.head(self.norm(x)).unflatten(-1, (self.num_codebooks, self.codebook_size))


class Decoder(CodeDecoder):
    """Mask tokens put back in place, then attention among all patches of a local window.

    Args:
        encoder_width, width, depth, num_codebooks, codebook_size: see :class:`CodeDecoder`.
        num_heads: H; must divide ``width``.
        window: patches of a window in time and frequency: every second block's windows are shifted in time by half a
            window.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        depth: int,
        num_heads: int,
        num_codebooks: int,
        codebook_size: int,
        window: Sequence[int],
        mlp_ratio: float = 4.0,
    ) -> None:
        window = tuple(window)

        def make_block(number: int) -> nn.Module:
            shift = window[0] // 2 if number % 2 else 0
            return Block(width, WindowAttention(width, num_heads, window, shift), mlp_ratio)

        super().__init__(encoder_width, width, depth, num_codebooks, codebook_size, make_block)
        self.window = window

    def forward(
        self, x: Tensor, mask: Mask, targets: Targets, grid: Sequence[int], padding_mask: Tensor | None = None
    ) -> Tensor:
        """See :meth:`CodeDecoder.forward`."""
        layout = BandLayout(grid, self.window)
        padding_mask = layout.padding(padding_mask, x.shape[0], x.device)
        x = layout.to_bands(self._on_grid(x, mask, grid))
        for block in self.blocks:
            x = block(x, padding_mask)
        return self._predict(targets.of(layout.from_bands(x)))


class GlobalDecoder(CodeDecoder):
    """Attention among the visible patches and those to predict; hidden patches that are not predicted are not there.

    With all hidden patches predicted this is attention among all patches; with a share of them the cost falls with it.

    Args:
        encoder_width, width, depth, num_codebooks, codebook_size: see :class:`CodeDecoder`.
        num_heads: H; must divide ``width``.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        depth: int,
        num_heads: int,
        num_codebooks: int,
        codebook_size: int,
        mlp_ratio: float = 4.0,
    ) -> None:
        def make_block(number: int) -> nn.Module:
            return Block(width, Attention(width, num_heads), mlp_ratio)

        super().__init__(encoder_width, width, depth, num_codebooks, codebook_size, make_block)

    def forward(
        self, x: Tensor, mask: Mask, targets: Targets, grid: Sequence[int], padding_mask: Tensor | None = None
    ) -> Tensor:
        """See :meth:`CodeDecoder.forward`."""
        seen, hidden = self._tokens(x, mask, targets, grid)
        x = torch.cat([seen, hidden], 1)
        padding = None
        if mask.visible_padding is not None and targets.padding is not None:  # both or none: clips of other lengths
            padding = torch.cat([mask.visible_padding, targets.padding], 1)
        for block in self.blocks:
            x = block(x, padding)
        return self._predict(x[:, seen.shape[1] :].flatten(0, 1))
