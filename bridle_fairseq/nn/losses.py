"""Losses of encoder and tokenizer, as sums over patches: they add up over ranks and micro-batches of any size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bridle_fairseq.quantization.residual import QuantizedResult


class CodeLoss(NamedTuple):
    """Result of :func:`code_loss`."""

    loss: Tensor  # scalar: sum over patches of the mean over levels
    per_level: Tensor  # K: sum over patches
    correct: Tensor  # K: number of patches whose (nearest) code has the largest logit
    num_patches: Tensor  # scalar: number of patches


class TokenizerLoss(NamedTuple):
    """Loss of the tokenizer stage."""

    loss: Tensor  # scalar: sum over valid patches of 1 - cos, plus their number times the codebook loss
    cosine: Tensor  # scalar: sum over valid patches of the cosine
    quantized: QuantizedResult
    num_patches: Tensor  # scalar: number of valid patches


def code_loss(logits: Tensor, codes: Tensor, padding_mask: Tensor | None = None) -> CodeLoss:
    """Cross-entropy of the encoder stage.

    Args:
        logits: P x K x C.
        codes: P x K, or P x K x m soft codes, nearest first; each of the m is a label of weight 1 / m.
        padding_mask: P, True at rows to ignore.
    """
    logits = logits.float()
    if codes.dim() == 2:
        codes = codes.unsqueeze(-1)  # P x K x 1
    loss = -functional.log_softmax(logits, dim=-1).gather(-1, codes).mean(-1)  # P x K
    correct = logits.detach().argmax(-1) == codes[..., 0]  # P x K
    if padding_mask is not None:
        loss, correct = loss.masked_fill(padding_mask[:, None], 0.0), correct & ~padding_mask[:, None]
    count = valid_count(logits[:, 0, 0], padding_mask)
    return CodeLoss(loss.mean(1).sum(), loss.detach().sum(0), correct.sum(0), count)


def cosine_loss(estimate: Tensor, target: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    """Sum over valid patches of 1 - cos(estimate, target); both B x N x D, in float32."""
    distance = 1 - functional.cosine_similarity(estimate.float(), target.float(), dim=-1)
    if padding_mask is not None:
        distance = distance.masked_fill(padding_mask, 0.0)
    return distance.sum()


def valid_count(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Number of values of ``x`` outside ``padding_mask`` (of the same shape), without a device synchronization."""
    if padding_mask is None:
        return torch.full((), x.numel(), device=x.device)
    return (~padding_mask).sum()
