"""Pre-norm transformer blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# Versions of a block's code: of each width, of each shift of windows, with and without gradient, with and without
# padding, and of the shapes of a size that varies (the first one, then any). torch gives up after 8, silently.
VERSIONS = 64


class Recomputable(nn.Module):
    """A block that can leave its activations out of memory; :func:`recompute_blocks` says whether it does."""

    recompute = False

    def __call__(self, *args: Any) -> Any:
        """The block's output; the gradients are the same to the bit either way."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *args, use_reentrant=False)
        return super().__call__(*args)


def recompute_blocks(model: nn.Module) -> None:
    """Keep only the inputs of a model's blocks for the backward pass (gradient checkpointing, arXiv 1604.06174)."""
    for block in _blocks(model):
        block.recompute = True


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Let torch.compile translate the blocks of a model, in place; names of parameters stay.

    Equal blocks share their code. A size that varies (clips of other lengths, a last batch) is compiled once for its
    first value and once for all others: nothing is compiled for each new length.

    Args:
        model: whatever holds blocks.
        backend: of torch.compile.
    """
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, VERSIONS)
    for block in _blocks(model):
        block.compile(backend=backend, fullgraph=True)


def _blocks(model: nn.Module) -> Iterator[Recomputable]:
    return (module for module in model.modules() if isinstance(module, Recomputable))


class Mlp(nn.Module):
    """Linear - GELU - Linear with a hidden layer of ``ratio`` times the width."""

    def __init__(self, width: int, ratio: float = 4.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.fc2 = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """... x D -> ... x D."""
        hidden = self.fc1(x)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.fc2(functional.gelu(hidden))
        # In place where nothing is kept for a backward pass: on a CPU, fresh memory of this size costs more than GELU.
        return self.fc2(torch.ops.aten.gelu_(hidden))


class Block(Recomputable):
    """Attention, then MLP, each on the normalised input and added to it.

    Args:
        width: D.
        attention: a module called with (x, padding_mask).
        mlp_ratio: hidden width of the MLP over D.
        drop_path: probability with which, while training, a clip skips attention, and again the MLP (stochastic depth,
            arXiv 1603.09382); what is not skipped is scaled up to the same mean.
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
        x = x + self._sometimes(self.attention(self.norm1(x), padding_mask))
        return x + self._sometimes(self.mlp(self.norm2(x)))

    def _sometimes(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        kept = branch.new_empty(len(branch), 1, 1).bernoulli_(1 - self.drop_path)
        return branch * (kept / (1 - self.drop_path))


def init_weights(module: nn.Module) -> None:
    """Xavier-uniform matrices and zero biases, as in MAE; to be used with ``module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
