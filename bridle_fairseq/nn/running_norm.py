"""Running mean and deviation of feature channels, over valid vectors of all ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bridle_fairseq.nn.losses import valid_count
from bridle_fairseq.utils.distributed import all_reduce_sum
from bridle_fairseq.utils.precision import KeepsDtype


class RunningStandardizer(KeepsDtype):
    """Subtracts a running mean and divides by a running deviation per channel; no gradient flows into either.

    Statistics are only added up in :meth:`forward` and take effect in :meth:`commit`, which every rank calls once an
    update (so several forwards an update, or a rank without data, are fine).

    Args:
        width: D.
        how: ``standardize``; ``center`` subtracts the mean only; ``plain`` leaves vectors as they are (the averages
            are kept all the same, so that a checkpoint fits every choice).
        decay: share of the old averages that an update keeps.
        floor: deviations below it count as it (silent mel bins have none).
    """

    mean: Tensor
    second: Tensor
    started: Tensor
    pending: Tensor

    def __init__(self, width: int, how: str = "standardize", decay: float = 0.99, floor: float = 1e-3) -> None:
        super().__init__()
        self.how, self.decay, self.floor = how, decay, floor
        self.known_started = False  # spares a look at the device's `started` in every forward
        self._collected = False  # since the last commit
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("second", torch.ones(width))  # running mean of squares
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("pending", torch.zeros(2 * width + 1, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None, collect: bool = True) -> Tensor:
        """... x D -> ... x D float32.

        Args:
            x: vectors.
            padding_mask: ..., True = padding, which does not count.
            collect: in training mode the valid vectors count for the next commit. The first forward in training mode
                starts the averages whether it collects or not, from the vectors of all ranks: it is collective.
                In eval mode nothing changes.
        """
        if self.training and (collect or not self.known_started):
            self._collect(x.detach().float().flatten(0, -2), padding_mask, collect)
        if self.how == "plain":
            return x.float()
        out = x.float() - self.mean
        if self.how == "standardize":
            out = out / (self.second - self.mean.square()).clamp(min=0).sqrt().clamp(min=self.floor)
        return out

    @torch.no_grad()
    def _collect(self, rows: Tensor, padding_mask: Tensor | None, keep: bool) -> None:
        if padding_mask is not None:
            rows = rows.masked_fill(padding_mask.reshape(-1, 1), 0.0)
        count = valid_count(rows[:, 0], None if padding_mask is None else padding_mask.flatten())
        rows = rows.double()
        total = torch.cat([rows.sum(0), rows.square().sum(0), count.double().view(1)])
        if not self.known_started:
            if not self.started:
                self._average(all_reduce_sum(total.clone()))
            self.known_started = bool(self.started)
        if keep:
            self.pending += total
            self._collected = True

    @torch.no_grad()
    def commit(self) -> None:
        """Take the pending statistics of all ranks into the averages.

        Collective where a forward pass has collected since the last commit, on all ranks then, if with nothing.
        """
        if self._collected:
            self._average(all_reduce_sum(self.pending.clone()))
        self.discard()

    def _average(self, total: Tensor) -> None:
        """EMA step with the sums, sums of squares and count in ``total``; the first one sets the averages."""
        count = total[-1]
        mean, second = (total[:-1] / count.clamp(min=1)).float().chunk(2)
        keep = torch.where(self.started, self.decay, 0.0)
        keep = torch.where(count > 0, keep, 1.0).float()
        self.mean.lerp_(mean, 1 - keep)
        self.second.lerp_(second, 1 - keep)
        self.started |= count > 0

    def discard(self) -> None:
        """Forget statistics that were not committed."""
        self.pending.zero_()
        self._collected = False

    def reset(self) -> None:
        """As new: the next batch starts the averages."""
        self.mean.zero_()
        self.second.fill_(1.0)
        self.started.fill_(False)
        self.known_started = False
        self.discard()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.known_started = False
        super()._load_from_state_dict(*args, **kwargs)
