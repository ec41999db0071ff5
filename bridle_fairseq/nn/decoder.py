"""Decoders (predictors): from the encoder's output at the visible patches to logits of the codes of masked patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridle_fairseq.nn.attention import Attention, BandLayout, WindowAttention
from bridle_fairseq.nn.masking import Mask, Targets
from bridle_fairseq.nn.position import sincos_position
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.nn.transformer import Block, CheckpointedModule, init_weights

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
KERNEL = 3  # patches along each axis


def decoder_of(s: BridleSettings) -> DecoderBase:
    """The decoder of a model with these settings."""
    # For ConvDecoder, decoder_heads is the number of groups.
    sizes = (s.encoder_width, s.decoder_width, s.decoder_depth, s.decoder_heads, s.num_codebooks, s.codebook_size)
    if s.decoder_kind == "convolution":
        return ConvDecoder(*sizes, axes=len(s.patch_size))
    return WindowDecoder(*sizes, s.decoder_window) if s.decoder_window else GlobalDecoder(*sizes)


class DecoderBase(nn.Module):
    """A linear map to the decoder's width, a mask token, blocks, and one linear head for all levels.

    Args:
        encoder_width: width of the encoder's output.
        width: D of the decoder.
        depth: number of blocks.
        num_codebooks, codebook_size: K, C; the head has K * C logits.
        make_block: index of a block (from 0) -> the block.
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
        self.blocks = nn.ModuleList([make_block(index) for index in range(depth)])
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
            mask: the mask that the encoder was given.
            targets: the masked patches to predict.
            grid: patches along each axis.
            padding_mask: B x N.

        Returns:
            P x K x C with P = B * Q. Rows where ``targets.flat_padding`` is True are meaningless.
        """
        raise NotImplementedError

    def _on_grid(self, x: Tensor, mask: Mask, grid: Sequence[int]) -> Tensor:
        """Visible features at their positions, the mask token elsewhere: B x V x encoder_width -> B x N x D."""
        x = self._fill(self.embed(x), mask)
        return x + sincos_position(grid, self.width, like=x)

    def _fill(self, x: Tensor, mask: Mask) -> Tensor:
        """Scatter B x V x D to the visible positions of B x N x D; the mask token stands at all others."""
        batch, num_patches = mask.masked.shape
        index = mask.visible
        if mask.visible_padding is not None:
            index = index.masked_fill(mask.visible_padding, num_patches)  # index N is a scratch slot for padding
        full = self.mask_token.to(x.dtype).expand(batch, num_patches + 1, -1)  # B x (N + 1) x D
        return full.scatter(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]), x)[:, :num_patches]

    def _predict(self, x: Tensor) -> Tensor:
        """P x D -> P x K x C. Only the targets go through the norm and the head."""
        return self.head(self.norm(x)).unflatten(-1, (self.num_codebooks, self.codebook_size))


class WindowDecoder(DecoderBase):
    """Attention within local windows of the patch grid; every second block shifts its windows by half a window in time.

    Blocks work on bands, strips of the grid that are one window wide in frequency (:class:`WindowAttention`).

    Args:
        encoder_width, width, depth, num_codebooks, codebook_size: see :class:`DecoderBase`.
        num_heads: H; must divide ``width``.
        window: patches of a window in time and in frequency.
        mlp_ratio: hidden width of a block's MLP, relative to ``width``.
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

        def make_block(index: int) -> nn.Module:
            shift = window[0] // 2 if index % 2 else 0
            return Block(width, WindowAttention(width, num_heads, window, shift), mlp_ratio)

        super().__init__(encoder_width, width, depth, num_codebooks, codebook_size, make_block)
        self.window = window

    def forward(
        self, x: Tensor, mask: Mask, targets: Targets, grid: Sequence[int], padding_mask: Tensor | None = None
    ) -> Tensor:
        """See :meth:`DecoderBase.forward`."""
        layout = BandLayout(grid, self.window)
        padding_mask = layout.padding(padding_mask, x.shape[0], x.device)
        x = layout.to_bands(self._on_grid(x, mask, grid))  # (B * bands) x (T * window[1]) x D
        for block in self.blocks:
            x = block(x, padding_mask)
        return self._predict(targets.of(layout.from_bands(x)))


class GlobalDecoder(DecoderBase):
    """Attention among the visible patches and the targets; masked patches that are not predicted are left out.

    If all masked patches are predicted, this is attention among all patches. The cost falls with the share predicted.

    Args:
        encoder_width, width, depth, num_codebooks, codebook_size: see :class:`DecoderBase`.
        num_heads: H; must divide ``width``.
        mlp_ratio: hidden width of a block's MLP, relative to ``width``.
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
        def make_block(index: int) -> nn.Module:
            return Block(width, Attention(width, num_heads), mlp_ratio)

        super().__init__(encoder_width, width, depth, num_codebooks, codebook_size, make_block)

    def forward(
        self, x: Tensor, mask: Mask, targets: Targets, grid: Sequence[int], padding_mask: Tensor | None = None
    ) -> Tensor:
        """See :meth:`DecoderBase.forward`."""
        visible = self.embed(x)  # B x V x D
        position = sincos_position(grid, self.width, like=visible)  # N x D
        queries = self.mask_token.to(visible.dtype) + position[targets.places]  # B x Q x D
        x = torch.cat([visible + position[mask.visible], queries], 1)  # B x (V + Q) x D
        padding = None
        if mask.visible_padding is not None and targets.padding is not None:  # both are set, or neither is
            padding = torch.cat([mask.visible_padding, targets.padding], 1)  # B x (V + Q)
        for block in self.blocks:
            x = block(x, padding)
        return self._predict(x[:, visible.shape[1] :].flatten(0, 1))  # (B * Q) x D -> P x K x C


class ConvBlock(CheckpointedModule):
    """Convolution, LayerNorm and GELU, with a residual connection.

    Args:
        width: D.
        groups: groups of channels of the convolution; must divide ``width``.
        axes: axes of the grid, 1 to 3.
    """

    def __init__(self, width: int, groups: int, axes: int) -> None:
        super().__init__()
        self.convolution = CONVOLUTIONS[axes](width, width, KERNEL, padding=KERNEL // 2, groups=groups)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """B x grid x D -> B x grid x D."""
        # B x grid x D is an image in channels-last memory format already: movedim copies nothing.
        y = self.convolution(x.movedim(-1, 1)).movedim(1, -1)  # B x D x grid and back
        return x + functional.gelu(self.norm(y))


class ConvDecoder(DecoderBase):
    """Convolutions over the patch grid; the receptive field reaches ``depth`` patches in every direction.

    Args:
        encoder_width, width, depth, num_codebooks, codebook_size: see :class:`DecoderBase`.
        groups: groups of channels of the convolutions; must divide ``width``.
        axes: axes of the grid, 1 to 3.

    Source: the decoder of data2vec 2.0 (arXiv 2212.07525, section 3.2) and EAT (arXiv 2401.03497).
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        depth: int,
        groups: int,
        num_codebooks: int,
        codebook_size: int,
        axes: int,
    ) -> None:
        def make_block(index: int) -> nn.Module:
            return ConvBlock(width, groups, axes)

        super().__init__(encoder_width, width, depth, num_codebooks, codebook_size, make_block)

    def forward(
        self, x: Tensor, mask: Mask, targets: Targets, grid: Sequence[int], padding_mask: Tensor | None = None
    ) -> Tensor:
        """See :meth:`DecoderBase.forward`."""
        x = self._on_grid(x, mask, grid).unflatten(1, tuple(grid))  # B x N x D -> B x grid x D
        padding = None if padding_mask is None else padding_mask.unflatten(1, tuple(grid)).unsqueeze(-1)
        for block in self.blocks:
            # Padding is zeroed before every convolution, like the border outside the grid.
            x = block(x if padding is None else x.masked_fill(padding, 0.0))
        return self._predict(targets.of(x.flatten(1, -2)))  # B x grid x D -> B x N x D -> P x D
