"""Modules around the quantizer: tokenizer encoder, tokenizer estimator, and the cold start's random projection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.attention import Attention
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.patch import gather_patches
from bridle_fairseq.nn.position import sincos_position
from bridle_fairseq.nn.transformer import Block, init_weights
from bridle_fairseq.utils.precision import KeepsDtype


class TokenizerEncoder(nn.Module):
    """A ViT over all patches, then Linear - Tanh - Linear to the dimension of the codes.

    Args:
        encoder: the tokenizer's own ViT, separate from the encoder that is pretrained.
        codebook_dim: dimension of the codes.
    """

    def __init__(self, encoder: Encoder, codebook_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.Linear(encoder.width, encoder.width), nn.Tanh(), nn.Linear(encoder.width, codebook_dim)
        )
        self.head.apply(init_weights)

    def forward(self, patches: Tensor, grid: Sequence[int], padding_mask: Tensor | None = None) -> Tensor:
        """B x N x patch_dim -> B x N x codebook_dim."""
        return self.head(self.encoder(patches, grid, padding_mask).x)

    def init_from_encoder(self, encoder: Encoder) -> None:
        """Copy patch embedding, class token, norm and the first blocks of an encoder; the head is random."""
        own = self.encoder
        with torch.no_grad():
            own.patch_embed.load_state_dict(encoder.patch_embed.state_dict())
            own.class_token.copy_(encoder.class_token)
            own.norm.load_state_dict(encoder.norm.state_dict())
            for mine, theirs in zip(own.blocks, encoder.blocks, strict=False):
                mine.load_state_dict(theirs.state_dict())
        self.head.apply(init_weights)

    def reset_parameters(self) -> None:
        """Initialize all weights at random."""
        self.apply(init_weights)
        nn.init.normal_(self.encoder.class_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()


class TokenizerEstimator(nn.Module):
    """Estimates features from quantized vectors: Linear, positions, global attention blocks, LayerNorm, Linear.

    Args:
        codebook_dim: dimension of the codes.
        width: D of its blocks.
        depth: number of blocks.
        num_heads: H; must divide ``width``.
        target_width: dimension of the estimated features.
    """

    def __init__(self, codebook_dim: int, width: int, depth: int, num_heads: int, target_width: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Linear(codebook_dim, width)
        self.blocks = nn.ModuleList([Block(width, Attention(width, num_heads)) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, target_width)
        self.apply(init_weights)

    def forward(self, quantized: Tensor, grid: Sequence[int], padding_mask: Tensor | None = None) -> Tensor:
        """B x N x codebook_dim -> B x N x target_width."""
        x = self.embed(quantized.to(self.embed.weight.dtype))
        x = x + sincos_position(grid, self.width, like=x)
        for block in self.blocks:
            x = block(x, padding_mask)
        return self.head(self.norm(x))

    def reset_parameters(self) -> None:
        """Initialize all weights at random."""
        self.apply(init_weights)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()


class RandomProjection(KeepsDtype):
    """The cold start's tokenizer: a random linear patch embedding, positions, and a random linear map; never trained.

    Weights are buffers, so that no optimizer, weight decay or stage changes them.

    Args:
        patch_dim: values of a flattened patch.
        width: D between the two maps.
        codebook_dim: dimension of the codes.
        position_scale: scale of the positions; 0 leaves them out.
    """

    embed: Tensor
    project: Tensor

    def __init__(self, patch_dim: int, width: int, codebook_dim: int, position_scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.position_scale = width, position_scale
        for name, sizes in (("embed", (width, patch_dim)), ("project", (codebook_dim, width))):
            self.register_buffer(name, torch.empty(sizes))
            nn.init.xavier_uniform_(getattr(self, name))  # returns None where transformers leaves initialization out

    def forward(self, patches: Tensor, grid: Sequence[int], places: Tensor | None = None) -> Tensor:
        """B x N x patch_dim -> B x N x codebook_dim; of the patches ``places`` (B x Q) only, B x Q x codebook_dim."""
        if places is not None:
            patches = gather_patches(patches, places)
        x = nn.functional.linear(patches.to(self.embed.dtype), self.embed)
        if self.position_scale:
            position = sincos_position(grid, self.width, like=x)
            x = x + self.position_scale * (position if places is None else position[places])
        return nn.functional.linear(x, self.project)
