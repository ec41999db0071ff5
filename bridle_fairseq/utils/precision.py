"""Which precision matrix products have, and buffers that keep theirs while a model is cast."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16", "auto")
CODES_PRECISIONS = ("auto", "float32", "float16", "bfloat16")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The context in which a model's matrix products have the precision of ``model.precision``.

    Args:
        precision: one of :data:`PRECISIONS`; ``auto`` is bfloat16 where :func:`has_fast_bfloat16`, ``float32`` leaves
            what is around it in force (fairseq's ``common.amp``).
        device: on which they are computed.
    """
    if not _is_bfloat16(precision, device):
        return nullcontext()
    if not has_fast_bfloat16(device.type):
        _warn(device.type)
    return torch.autocast(device.type, dtype=torch.bfloat16)


def autocast_codes(precision: str, codes_precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The context in which the tokenizer makes codes, which no gradient follows.

    The last levels of residual quantization tell vectors apart that are near each other: bfloat16 gives other codes
    than float32 at several of a hundred patches, float16 at less than one, at the same speed on a GPU. (Gradients would
    not fit into float16 without scaling.)

    Args:
        precision: as of :func:`autocast`.
        codes_precision: one of :data:`CODES_PRECISIONS`; ``auto``: float32 if ``precision`` is, and on a CPU, which is
            slow in float16; else float16.
        device: on which the codes are computed.
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
