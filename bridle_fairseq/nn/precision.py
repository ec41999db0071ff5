"""Which precision matrix products have, and buffers that keep theirs while a model is cast."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16", "auto")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a model's matrix products have the precision of ``model.precision``.

    Args:
        precision: one of :data:`PRECISIONS`; ``auto`` is bfloat16 where :func:`has_fast_bfloat16`.
        device: on which they are computed.
    """
    bfloat16 = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device.type))
    if bfloat16 and not has_fast_bfloat16(device.type):
        _warn(device.type)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16)


@cache
def has_fast_bfloat16(device_type: str) -> bool:
    """Whether a device has instructions for products in bfloat16: without them they are emulated, many times slower."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN takes bfloat16 from AVX-512 on, but is no faster than in float32 without one of these
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in names)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache  # once a process
def _warn(device_type: str) -> None:
    logger.warning(
        f"model.precision is bfloat16, which this {device_type} has no instructions for: expect many times the time of "
        "float32; model.precision=auto takes bfloat16 only where it is fast"
    )


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
