"""A light decoder: each hidden patch asks the visible ones, and no hidden patch asks another."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bridle_fairseq.nn.attention import attend
from bridle_fairseq.nn.decoder import CodeDecoder
from bridle_fairseq.nn.masking import Mask, Targets
from bridle_fairseq.nn.transformer import Mlp, Recomputable


class CrossAttention(nn.Module):
    """Multi-head attention of some tokens to others.

    Args:
        width: D.
        num_heads: H; must divide ``width``.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, memory_padding: Tensor | None = None) -> Tensor:
        """B x Q x D and what is asked, B x V x D (``memory_padding``: B x V) -> B x Q x D."""
        q = self.query(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.key_value(memory).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        allowed = None if memory_padding is None else ~memory_padding[:, None, None, :]
        return self.proj(attend(q, k, v, allowed).transpose(1, 2).flatten(2))


class CrossBlock(Recomputable):
    """Cross-attention, then MLP, each on the normalised input and added to it."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = CrossAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(self, x: Tensor, memory: Tensor, memory_padding: Tensor | None = None) -> Tensor:
        """As :class:`CrossAttention`."""
        x = x + self.attention(self.norm1(x), memory, memory_padding)
        return x + self.mlp(self.norm2(x))


class CrossDecoder(CodeDecoder):
    """Mask tokens at the targets attend to the visible patches; the cost falls with the share that is predicted.

    Args:
        encoder_width, width, depth, num_codebooks, codebook_size: see :class:`CodeDecoder`.
        num_heads: H; must divide ``width``.

    Source: CrossMAE (arXiv 2401.14391, section 3), here with the encoder's last layer alone.
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
            return CrossBlock(width, num_heads, mlp_ratio)

        super().__init__(encoder_width, width, depth, num_codebooks, codebook_size, make_block)

    def forward(
        self, x: Tensor, mask: Mask, targets: Targets, grid: Sequence[int], padding_mask: Tensor | None = None
    ) -> Tensor:
        """See :meth:`CodeDecoder.forward`."""
        memory, x = self._tokens(x, mask, targets, grid)
        for block in self.blocks:
            x = block(x, memory, mask.visible_padding)
        return self._predict(x.flatten(0, 1))
