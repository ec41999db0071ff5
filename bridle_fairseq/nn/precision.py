"""Buffers that keep their precision while a model is cast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class KeepsDtype(nn.Module):
    """A module that follows its model to another device but not to another dtype.

    fairseq's ``fp16`` and ``bf16`` cast the whole model, buffers too; averages, codebooks and filter banks would be
    ruined.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def move_only(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move_only, recurse)  # type: ignore[no-untyped-call]
