"""What is done to all blocks of a model alike: compiled, or computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
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
