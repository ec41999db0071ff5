"""The encoder: a vision transformer over the visible patches of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.attention import Attention
from bridle_fairseq.nn.patch import gather_patches
from bridle_fairseq.nn.position import sincos_position
from bridle_fairseq.nn.transformer import Block, init_weights


class EncoderOutput(NamedTuple):
    """Output of an :class:`Encoder`."""

    x: Tensor  # B x V x D (B x N x D without a mask), normalized
    class_token: Tensor  # B x D, normalized
    layers: list[Tensor]  # output of each block, B x V x D, not normalized; empty unless requested
    class_tokens: Sequence[Tensor] = ()  # class token after each block, B x D, not normalized

    def of_layer(self, number: int) -> EncoderOutput:
        """Output of block ``number`` (from 1) in place of the last one; that of the last block is normalized."""
        if number == len(self.layers):
            return EncoderOutput(self.x, self.class_token, [])
        return EncoderOutput(self.layers[number - 1], self.class_tokens[number - 1], [])


class Encoder(nn.Module):
    """Pre-norm ViT with a class token and fixed sin-cos positions of the actual grid.

    Args:
        patch_dim: values of a flattened patch.
        width: D.
        depth: number of blocks.
        num_heads: H; must divide ``width``.
        mlp_ratio: hidden width of the MLPs over D.
        drop_path: drop rate of the last block (see :class:`Block`); it rises linearly from 0 at the first block.
    """

    def __init__(
        self,
        patch_dim: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        self.patch_embed = nn.Linear(patch_dim, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList([Block(width, Attention(width, num_heads), mlp_ratio, rate) for rate in rates])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.apply(init_weights)
        nn.init.normal_(self.class_token, std=0.02)

    def forward(
        self,
        patches: Tensor,
        grid: Sequence[int],
        padding_mask: Tensor | None = None,
        visible: Tensor | None = None,
        visible_padding: Tensor | None = None,
        with_layers: bool = False,
        offset: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode all patches, or the visible ones only.

        Args:
            patches: B x N x patch_dim.
            grid: patches along each axis; their product is N.
            padding_mask: B x N, for all patches.
            visible: B x V indices of the patches to encode; None: all of them.
            visible_padding: B x V, True where ``visible`` is padding.
            with_layers: also return the output of each block.
            offset: B; offset of each clip's grid along the first axis, for chunks of longer clips (without
                ``visible``); 0 by default.
        """
        position = sincos_position(grid, self.width, like=self.class_token, offset=offset)
        if visible is not None:
            patches, padding_mask = gather_patches(patches, visible), visible_padding
            position = position[visible]
        x = self.patch_embed(patches.to(self.patch_embed.weight.dtype)) + position  # B x V x D
        x = torch.cat([self.class_token.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)  # B x (1 + V) x D
        if padding_mask is not None:
            padding_mask = torch.cat([padding_mask.new_zeros(x.shape[0], 1), padding_mask], dim=1)
        layers, class_tokens = [], []
        for block in self.blocks:
            x = block(x, padding_mask)
            if with_layers:
                layers.append(x[:, 1:])
                class_tokens.append(x[:, 0])
        x = self.norm(x)
        return EncoderOutput(x[:, 1:], x[:, 0], layers, class_tokens)
