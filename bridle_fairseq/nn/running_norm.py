"""Normalization by the running mean and standard deviation of each channel, over valid vectors of all ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bridle_fairseq.nn.losses import valid_count
from bridle_fairseq.utils.distributed import all_reduce_sum
from bridle_fairseq.utils.precision import KeepsDtype


class RunningNorm(KeepsDtype):
    """Subtracts the running mean and divides by the running standard deviation per channel; neither gets a gradient.

    :meth:`forward` only accumulates statistics. They take effect in :meth:`commit`, which every rank calls once per
    update, so several forward passes per update and ranks without data are possible.

    Args:
        width: D.
        mode: ``standardize``, ``center`` (subtract the mean only) or ``plain`` (return vectors unchanged). Averages are
            kept in every mode, so that checkpoints fit all of them.
        decay: decay of the averages per update.
        floor: smallest standard deviation; mel bins of silence have none.
    """

    mean: Tensor
    second: Tensor
    started: Tensor
    pending: Tensor

    def __init__(self, width: int, mode: str = "standardize", decay: float = 0.99, floor: float = 1e-3) -> None:
        super().__init__()
        self.mode, self.decay, self.floor = mode, decay, floor
        self._initialized_cache = False  # `started` on the host; avoids a device synchronization in every forward pass
        self._collected = False  # whether a forward pass has collected since the last commit
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("second", torch.ones(width))  # running mean of squares
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("pending", torch.zeros(2 * width + 1, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None, collect: bool = True) -> Tensor:
        """... x D -> ... x D float32.

        Args:
            x: vectors.
            padding_mask: ..., True = padding, which is left out of the statistics.
            collect: in training mode, collect the valid vectors for the next commit. The first forward pass in training
                mode initializes the averages in any case, from the vectors of all ranks; it is a collective. Nothing
                changes in eval mode.
        """
        if self.training and (collect or not self._initialized_cache):
            self._collect(x.detach().float().flatten(0, -2), padding_mask, collect)
        if self.mode == "plain":
            return x.float()
        out = x.float() - self.mean
        if self.mode == "standardize":
            out = out / (self.second - self.mean.square()).clamp(min=0).sqrt().clamp(min=self.floor)
        return out

    @torch.no_grad()
    def _collect(self, rows: Tensor, padding_mask: Tensor | None, keep: bool) -> None:
        """Add the valid ones of ``rows`` (n x D) to the pending sums if ``keep``; initialize averages if needed."""
        if padding_mask is not None:
            rows = rows.masked_fill(padding_mask.reshape(-1, 1), 0.0)
        count = valid_count(rows[:, 0], None if padding_mask is None else padding_mask.flatten())
        rows = rows.double()
        total = torch.cat([rows.sum(0), rows.square().sum(0), count.double().view(1)])  # 2D + 1
        if not self._initialized_cache:
            if not self.started:
                self._average(all_reduce_sum(total.clone()))
            self._initialized_cache = bool(self.started)
        if keep:
            self.pending += total
            self._collected = True

    @torch.no_grad()
    def commit(self) -> None:
        """Update the averages with the pending statistics of all ranks.

        A collective if forward passes have collected since the last commit: every rank takes part, even if it has no
        data.
        """
        if self._collected:
            self._average(all_reduce_sum(self.pending.clone()))
        self.discard()

    def _average(self, total: Tensor) -> None:
        """EMA step with the sums, sums of squares and count in ``total`` (2D + 1); the first step sets the averages."""
        count = total[-1]
        mean, second = (total[:-1] / count.clamp(min=1)).float().chunk(2)
        keep = torch.where(self.started, self.decay, 0.0)
        keep = torch.where(count > 0, keep, 1.0).float()
        self.mean.lerp_(mean, 1 - keep)
        self.second.lerp_(second, 1 - keep)
        self.started |= count > 0

    def discard(self) -> None:
        """Drop the pending statistics."""
        self.pending.zero_()
        self._collected = False

    def reset(self) -> None:
        """Back to the initial state; the next batch initializes the averages."""
        self.mean.zero_()
        self.second.fill_(1.0)
        self.started.fill_(False)
        self._initialized_cache = False
        self.discard()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._initialized_cache = False
        super()._load_from_state_dict(*args, **kwargs)
