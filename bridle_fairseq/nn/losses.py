"""Losses of the two stages. All are sums over patches, so that ranks and micro-batches of any size add up exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bridle_fairseq.quantization.result import QuantizedResult


class CodeLoss(NamedTuple):
    """Prediction of codes at masked patches, each level by itself."""

    loss: Tensor  # scalar: sum over patches of the mean over levels
    per_level: Tensor  # K: sum over patches
    correct: Tensor  # K: patches whose nearest code was predicted
    num_patches: Tensor  # scalar: how many there are


class TokenizerLoss(NamedTuple):
    """The tokenizer's side of an update."""

    loss: Tensor  # scalar: sum over valid patches of 1 - cos, plus their number times the codebook loss
    cosine: Tensor  # sum over valid patches of the cosine
    quantized: QuantizedResult
    num_patches: Tensor  # scalar: valid ones


def code_loss(logits: Tensor, codes: Tensor, padding_mask: Tensor | None = None) -> CodeLoss:
    """Cross-entropy between logits and codes (METHOD: the encoder stage).

    Args:
        logits: P x K x C.
        codes: P x K, or P x K x m soft codes, nearest first: each of the m is a label of weight 1 / m.
        padding_mask: P, True at rows that do not count.
    """
    logits = logits.float()
    if codes.dim() == 2:
        codes = codes.unsqueeze(-1)
    loss = -functional.log_softmax(logits, dim=-1).gather(-1, codes).mean(-1)  # P x K
    correct = logits.detach().argmax(-1) == codes[..., 0]
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
    """How many values of ``x`` are no padding (of its shape), on their device, which is not waited for."""
    if padding_mask is None:
        return torch.full((), x.numel(), device=x.device)
    return (~padding_mask).sum()
