"""What quantizing gives, and how gradients pass it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class QuantizedResult(NamedTuple):
    """What quantizing ``z`` (... x D) gives."""

    quantized: Tensor  # ... x D, the sum of the levels' codes, one straight-through step, dtype of the input
    codes: Tensor  # ... x K long, the nearest codes; valid indices without meaning at padding
    codebook_loss: Tensor  # scalar float32, mean over levels of mse(sg[r], q); no gradient, the codes move by averages
    commitment_loss: Tensor  # scalar float32, mean over levels of mse(r, sg[q])
    residual_energy: Tensor  # K, mean |r_k|^2 / mean |r_0|^2 after each level
    commitment_weight: float = 0.25

    @property
    def loss(self) -> Tensor:
        """Codebook loss plus the weighted commitment loss."""
        return self.codebook_loss.detach() + self.commitment_weight * self.commitment_loss


class StraightThrough(torch.autograd.Function):
    """``quantized`` with the gradient of ``unit``, and ``commitment`` with the gradient ``pull`` there; all n x D.

    The commitment loss is the mean of ``|r_k|^2``, whose gradient at r_0 is that of ``2 r_0 . sg[mean of r_k]``.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, quantized: Tensor, commitment: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(pull)
        return quantized, commitment

    @staticmethod
    def backward(ctx: Any, to_quantized: Tensor | None, to_commitment: Tensor | None) -> tuple[Tensor | None, ...]:
        if to_commitment is None:
            return to_quantized, None, None, None
        pulled = ctx.saved_tensors[0] * to_commitment
        return pulled if to_quantized is None else pulled.add_(to_quantized), None, None, None
