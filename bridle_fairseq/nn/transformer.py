"""Pre-norm transformer blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# Compiled versions of a block: per width and window shift, with and without gradient, with and without padding, and two
# per size that varies (its first value, then any value). torch stops compiling after 8 versions without a message.
MAX_COMPILED_VERSIONS = 64


class CheckpointedModule(nn.Module):
    """A block that can recompute its activations in the backward pass; :func:`recompute_blocks` switches this on."""

    recompute = False

    def __call__(self, *args: Any) -> Any:
        """The block's output; gradients are bit-identical with and without recomputation."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *args, use_reentrant=False)
        return super().__call__(*args)


def recompute_blocks(model: nn.Module) -> None:
    """Store only the inputs of a model's blocks for the backward pass (gradient checkpointing, arXiv 1604.06174)."""
    for block in _blocks(model):
        block.recompute = True


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Compile the blocks of a model in place with torch.compile; parameter names do not change.

    Equal blocks share compiled code. A size that varies (the length of clips, the last batch) is compiled once for its
    first value and once for all others, so new lengths do not recompile.

    Args:
        model: any module that contains blocks.
        backend: backend of torch.compile.
    """
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, MAX_COMPILED_VERSIONS)
    for block in _blocks(model):
        block.compile(backend=backend, fullgraph=True)


def _blocks(model: nn.Module) -> Iterator[CheckpointedModule]:
    return (module for module in model.modules() if isinstance(module, CheckpointedModule))


class Mlp(nn.Module):
    """Linear - GELU - Linear; the hidden layer is ``ratio`` times as wide as the input."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.fc2 = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """... x D -> ... x D."""
        hidden = self.fc1(x)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.fc2(functional.gelu(hidden))
        # In place without a backward pass: on a CPU, allocating this much memory costs more than the GELU itself.
        return self.fc2(torch.ops.aten.gelu_(hidden))


class Block(CheckpointedModule):
    """Pre-norm transformer block: attention and MLP, each with a LayerNorm before it and a residual connection.

    Args:
        width: D.
        attention: module that is called with (x, padding_mask).
        mlp_ratio: hidden width of the MLP over D.
        drop_path: probability with which a training clip skips attention, and independently the MLP (stochastic depth,
            arXiv 1603.09382). Branches that are kept are scaled by 1 / (1 - drop_path).
    """

    def __init__(self, width: int, attention: nn.Module, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """B x L x D -> B x L x D; ``padding_mask``: B x L."""
        x = x + self._drop_path(self.attention(self.norm1(x), padding_mask))
        return x + self._drop_path(self.mlp(self.norm2(x)))

    def _drop_path(self, branch: Tensor) -> Tensor:
        """B x L x D -> B x L x D, zero for the clips that skip this branch."""
        if not self.training or self.drop_path == 0.0:
            return branch
        kept = branch.new_empty(len(branch), 1, 1).bernoulli_(1 - self.drop_path)  # B x 1 x 1
        return branch * (kept / (1 - self.drop_path))


def init_weights(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases as in MAE; for ``module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
