"""Precision of matrix products, and buffers that keep their dtype when a model is cast."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16", "auto")
CODES_PRECISIONS = ("auto", "float32", "float16", "bfloat16")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Context for a model's matrix products in the precision of ``model.precision``.

    Args:
        precision: one of :data:`PRECISIONS`. ``auto`` is bfloat16 if :func:`has_fast_bfloat16`, else float32.
            ``float32`` keeps an enclosing autocast (fairseq's ``common.amp``).
        device: device of the products.
    """
    if not _is_bfloat16(precision, device):
        return nullcontext()
    if not has_fast_bfloat16(device.type):
        _warn(device.type)
    return torch.autocast(device.type, dtype=torch.bfloat16)


def autocast_codes(precision: str, codes_precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Context in which the tokenizer computes codes, without gradients.

    The last levels of residual quantization distinguish vectors that are close together. bfloat16 changes the codes of
    several percent of the patches compared with float32; float16 changes less than one percent, at the same speed on a
    GPU. Gradients would need scaling in float16, but codes have none.

    Args:
        precision: as in :func:`autocast`.
        codes_precision: one of :data:`CODES_PRECISIONS`. ``auto`` is float32 if ``precision`` is, and on a CPU, which
            is slow in float16; else float16.
        device: device of the codes.
    """
    if codes_precision == "auto":
        if not _is_bfloat16(precision, device):
            return nullcontext()
        codes_precision = "float16" if device.type == "cuda" else "float32"
    if codes_precision == "float32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=getattr(torch, codes_precision))


def _is_bfloat16(precision: str, device: torch.device) -> bool:
    return precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device.type))


@cache
def has_fast_bfloat16(device_type: str) -> bool:
    """Whether a device has instructions for bfloat16 products. Without them, emulation is many times slower."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN accepts bfloat16 with AVX-512, but it is not faster than float32 without one of these
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in names)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache  # once per process
def _warn(device_type: str) -> None:
    logger.warning(
        f"model.precision is bfloat16, which this {device_type} has no instructions for: expect many times the time of "
        "float32; model.precision=auto takes bfloat16 only where it is fast"
    )


class KeepsDtype(nn.Module):
    """A module that moves to another device with its model, but keeps its dtype.

    fairseq's ``fp16`` and ``bf16`` cast the whole model including buffers, which would ruin averages, codebooks and
    filter banks.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        def move_only(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move_only, recurse)
