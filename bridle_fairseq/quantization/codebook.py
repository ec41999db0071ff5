"""Codebooks that follow their vectors by exponential moving averages (van den Oord et al. 2017, 1711.00937, A.1)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bridle_fairseq.quantization.restarts import MAX_RESTARTS, restart_dead_codes, restart_priorities, sync_candidates
from bridle_fairseq.utils import distributed
from bridle_fairseq.utils.precision import KeepsDtype


class EmaCodebooks(KeepsDtype):
    """K codebooks of C codes of width D, the moving averages behind them, and their update. No gradients reach them.

    A forward pass only collects statistics, on its own rank. :meth:`commit` sums them over the ranks and updates the
    codes; it is a collective. Neither waits for the device.

    Persistent buffers are the state, and ``pending_*`` is collected for the next update. Buffers keep their dtype under
    ``half()``, ``bfloat16()`` and ``to(dtype)``, and when a state of another dtype is loaded: averages that move by a
    hundredth per update do not survive in half precision.

    Several books divide the levels and the D dimensions among them. The codes of a book are zero in the dimensions of
    the others, so its search and its residuals concern its own share of a vector alone.
    """

    codes: Tensor  # K x C x D, the code vectors
    sizes: Tensor  # K x C, moving average of the number of vectors of a code per update ("cluster size")
    sums: Tensor  # K x C x D, moving average of the sum of these vectors ("embed sum")
    usage: Tensor  # K x C, moving average of the code frequencies
    started: Tensor  # bool, whether the codes have been initialized
    num_updates: Tensor  # long
    restarted: Tensor  # K, number of dead codes that restarted in the last update; logged as `revived_k`
    pending_counts: Tensor  # K x (C + 1), index C is a scratch slot for padding
    pending_sums: Tensor  # K x (C + 1) x D
    pending_usage: Tensor  # K x (C + 1), counts for `usage` alone
    pending_priorities: Tensor  # K x P, of the candidates for restarts; inf in empty slots
    pending_candidates: Tensor  # K x P x D

    def __init__(
        self,
        num_codebooks: int,
        codebook_size: int,
        dim: int,
        *,
        decay: float,
        epsilon: float,
        restart_threshold: float,
        restart_step: float,
        unit_codes: bool,
        num_books: int = 1,
    ) -> None:
        super().__init__()
        self.decay, self.epsilon, self.unit_codes = decay, epsilon, unit_codes
        self.restart_threshold, self.restart_step = restart_threshold, restart_step
        levels, size, slots = num_codebooks, codebook_size, min(codebook_size, MAX_RESTARTS)
        share = dim // num_books
        book_of_level = [level // (levels // num_books) for level in range(levels)]
        self.dimensions = [slice(book * share, (book + 1) * share) for book in book_of_level]  # of each level
        self.has_pending_vectors = False  # False: nothing is pending, or counts for `usage` alone
        self.register_buffer("codes", torch.zeros(levels, size, dim))
        self.register_buffer("sizes", torch.zeros(levels, size))
        self.register_buffer("sums", torch.zeros(levels, size, dim))
        self.register_buffer("usage", torch.zeros(levels, size))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))
        self.register_buffer("restarted", torch.zeros(levels), persistent=False)
        self.register_buffer("pending_counts", torch.zeros(levels, size + 1), persistent=False)
        self.register_buffer("pending_sums", torch.zeros(levels, size + 1, dim), persistent=False)
        self.register_buffer("pending_usage", torch.zeros(levels, size + 1), persistent=False)
        self.register_buffer("pending_priorities", torch.full((levels, slots), math.inf), persistent=False)
        self.register_buffer("pending_candidates", torch.zeros(levels, slots, dim), persistent=False)

    def set_level(self, level: int, codes: Tensor, sizes: Tensor) -> None:
        """Set the codes of a level (C x D) and the average number of vectors of each (C)."""
        self.codes[level] = F.normalize(codes, dim=1) if self.unit_codes else self.share_of(level, codes)
        self.sizes[level] = sizes
        self.sums[level] = self.codes[level] * sizes.unsqueeze(1)

    def share_of(self, level: int, vectors: Tensor) -> Tensor:
        """Vectors (n x D), zero outside the dimensions of the level's book."""
        own = self.dimensions[level]
        if own == slice(0, vectors.shape[1]):
            return vectors
        return F.pad(vectors[:, own], (own.start, vectors.shape[1] - own.stop))

    # -- statistics of a forward pass --------------------------------------------------------------------------------

    def add_usage(self, codes: Tensor, valid: Tensor) -> None:
        """Count ``codes`` (n x K) where ``valid`` (n bool), for the usage statistics alone."""
        self._count(self.pending_usage, codes, valid)

    def add_counts(self, codes: Tensor, valid: Tensor) -> None:
        """Count ``codes`` (n x K) where ``valid`` (n bool), for the next update."""
        self._count(self.pending_counts, codes, valid)
        self.has_pending_vectors = True

    def add_sums(self, level: int, residual: Tensor, codes: Tensor, valid: Tensor) -> None:
        """Add ``residual`` (n x D), where ``valid`` (n bool), to the sums of a level's ``codes`` (n)."""
        own = self.dimensions[level]
        index = codes.masked_fill(~valid, self.codes.shape[1])
        self.pending_sums[level][:, own].index_add_(0, index, residual[:, own])

    def _count(self, counts: Tensor, codes: Tensor, valid: Tensor) -> None:
        index = codes.masked_fill(~valid.unsqueeze(1), self.codes.shape[1]).t()  # n x K -> K x n
        counts.scatter_add_(1, index, torch.ones_like(index, dtype=torch.float32))

    def add_candidates(self, rows: Tensor, unit: Tensor, codes: Tensor, valid: Tensor) -> None:
        """Draw some valid rows; at each level, each of them gives a candidate for restarts.

        The candidate lies on the line from the row's code to its residual, at ``restart_step`` of the way.

        Args:
            rows: n x D, the vectors z.
            unit: n x D, their r_0.
            codes: n x K.
            valid: n bool.
        """
        slots = self.pending_priorities.shape[1]
        priorities, drawn = restart_priorities(rows, valid, self.num_updates, slots)  # p, p
        residual = unit[drawn]  # p x D
        for level, codebook in enumerate(self.codes):
            vectors = F.embedding(codes[drawn, level], codebook)  # p x D
            all_priorities = torch.cat([self.pending_priorities[level], priorities])  # P + p
            beside_codes = self.share_of(level, torch.lerp(vectors, residual, self.restart_step))
            all_candidates = torch.cat([self.pending_candidates[level], beside_codes])  # (P + p) x D
            lowest = all_priorities.topk(slots, largest=False)
            self.pending_priorities[level] = lowest.values
            self.pending_candidates[level] = all_candidates[lowest.indices]
            residual = residual - vectors

    # -- update ------------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Update the codebooks with what all ranks have collected since the last commit.

        Collective: since then every rank has made the same kinds of calls, even if it had no vectors. If no call has
        collected vectors, only counts are sent and only ``usage`` is updated.
        """
        if self.has_pending_vectors:
            sync_candidates(self.pending_priorities, self.pending_candidates)
            distributed.all_reduce_sum_together(self.pending())
            self.update()
        else:
            self._update_usage(distributed.all_reduce_sum(self.pending_usage)[:, : self.codes.shape[1]])
            self.restarted.zero_()
        self.discard()

    def pending(self) -> list[Tensor]:
        """Statistics to sum over the ranks before :meth:`update`."""
        return [self.pending_counts, self.pending_sums, self.pending_usage, self.pending_candidates]

    def update(self) -> None:
        """Update codes, averages and usage with the pending statistics, and restart dead codes.

        The pending statistics must be sums over the ranks by now.

        With n vectors of sum m in this update, the averages of a code are N <- decay N + (1 - decay) n and
        M <- decay M + (1 - decay) m. The code moves to M / N, where Laplace smoothing keeps N from 0.
        """
        size = self.codes.shape[1]
        counts, sums = self.pending_counts[:, :size], self.pending_sums[:, :size]  # K x C, K x C x D
        usable = (counts.sum() > 0) & sums.isfinite().all()  # else nothing but the usage changes; a bool on the device
        self._update_usage(counts + self.pending_usage[:, :size])
        sizes = torch.lerp(counts, self.sizes, self.decay)
        sums = torch.lerp(sums, self.sums, self.decay)
        total = sizes.sum(dim=1, keepdim=True)
        smoothed = (sizes + self.epsilon) / (total + size * self.epsilon) * total
        codes = sums / smoothed.clamp_min(self.epsilon).unsqueeze(2)
        candidates = self.pending_candidates
        if self.unit_codes:
            codes, candidates = F.normalize(codes, dim=2), F.normalize(candidates, dim=2)
        restarted = restart_dead_codes(codes, sizes, sums, self.pending_priorities, candidates, self.restart_threshold)
        self.restarted.copy_(restarted * usable)
        self.codes.copy_(torch.where(usable, codes, self.codes))
        self.sizes.copy_(torch.where(usable, sizes, self.sizes))
        self.sums.copy_(torch.where(usable, sums, self.sums))
        self.num_updates += usable

    def _update_usage(self, counts: Tensor) -> None:
        total = counts.sum(dim=1, keepdim=True)
        frequency = counts / total.clamp_min(1)
        first = self.usage.sum(dim=1, keepdim=True) == 0
        moved = torch.where(first, frequency, torch.lerp(frequency, self.usage, self.decay))
        self.usage.copy_(torch.where(total > 0, moved, self.usage))

    def discard(self) -> None:
        """Discard the pending statistics."""
        for tensor in self.pending():
            tensor.zero_()
        self.pending_priorities.fill_(math.inf)
        self.has_pending_vectors = False

    def reset(self) -> None:
        """Return to the state of a new module."""
        self.discard()
        state = (self.codes, self.sizes, self.sums, self.usage, self.started, self.num_updates, self.restarted)
        for tensor in state:
            tensor.zero_()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        own = dict(self.named_buffers(recurse=False))
        saved = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        state_dict.update({prefix + name: tensor.to(own[name].dtype) for name, tensor in saved.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)
        device = next(self.buffers()).device  # with assign=True the state's, which pending buffers must follow
        for name in self._non_persistent_buffers_set:
            setattr(self, name, torch.zeros_like(own[name], device=device))
        self.discard()
