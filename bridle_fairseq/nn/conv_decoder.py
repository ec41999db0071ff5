"""A light decoder: convolutions over the grid of patches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from bridle_fairseq.nn.decoder import CodeDecoder
from bridle_fairseq.nn.masking import Mask, Targets
from bridle_fairseq.nn.transformer import Recomputable

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
KERNEL = 3  # patches along each axis


class ConvBlock(Recomputable):
    """A convolution, normalised and through a GELU, added to its input.

    Args:
        width: D.
        groups: of channels that see each other; must divide ``width``.
        axes: of the grid.
    """

    def __init__(self, width: int, groups: int, axes: int) -> None:
        super().__init__()
        self.convolution = CONVOLUTIONS[axes](width, width, KERNEL, padding=KERNEL // 2, groups=groups)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """B x grid x D -> B x grid x D."""
        # Tokens of a grid are an image in channels-last order already: nothing is copied.
        y = self.convolution(x.movedim(-1, 1)).movedim(1, -1)
        return x + functional.gelu(self.norm(y))


class ConvDecoder(CodeDecoder):
    """Mask tokens put back in place, then convolutions over the grid; each patch sees ``depth`` patches far.

    Args:
        encoder_width, width, depth, num_codebooks, codebook_size: see :class:`CodeDecoder`.
        groups: of channels; must divide ``width``.
        axes: of the grid, 1 to 3.

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
        def make_block(number: int) -> nn.Module:
            return ConvBlock(width, groups, axes)

        super().__init__(encoder_width, width, depth, num_codebooks, codebook_size, make_block)

    def forward(
        self, x: Tensor, mask: Mask, targets: Targets, grid: Sequence[int], padding_mask: Tensor | None = None
    ) -> Tensor:
        """See :meth:`CodeDecoder.forward`."""
        x = self._on_grid(x, mask, grid).unflatten(1, tuple(grid))
        padding = None if padding_mask is None else padding_mask.unflatten(1, tuple(grid)).unsqueeze(-1)
        for block in self.blocks:
            # Padding is zero in front of every convolution, as what lies outside of the grid is.
            x = block(x if padding is None else x.masked_fill(padding, 0.0))
        return self._predict(targets.of(x.flatten(1, -2)))
