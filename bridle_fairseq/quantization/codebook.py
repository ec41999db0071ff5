"""Codebooks that follow their vectors by exponential moving averages, and the search in them.

van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1, for the averages; restarts of dead codes after Dhariwal et
al. 2020 (arXiv 2005.00341).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bridle_fairseq.utils import distributed
from bridle_fairseq.utils.precision import KeepsDtype

# Scores held at once: on a CPU what a core's cache holds, on an accelerator what its memory does not notice.
SCORES_AT_ONCE_CPU = 1 << 18
SCORES_AT_ONCE = 1 << 26

RESTARTS_AT_ONCE = 64  # of a level in an update, at most


def rows_at_once(rows: Tensor, values: int) -> int:
    """How many of ``rows`` to work on at once where each takes so many values, such as a score for every code."""
    budget = SCORES_AT_ONCE_CPU if rows.device.type == "cpu" else SCORES_AT_ONCE
    return max(1, budget // values)


class Search:
    """Search in a codebook (C x D) for any number of rows.

    Nearest in squared distance, or in direction if ``cosine``. The rows' own length does not change the order of the
    codes, so ``|r - e|^2`` is searched as ``|e|^2 - 2 r.e``, and a cosine as ``-r.e / |e|``.
    """

    def __init__(self, codes: Tensor, cosine: bool = False) -> None:
        codes = F.normalize(codes, dim=1) if cosine else codes
        self.offset = codes.new_zeros(len(codes)) if cosine else codes.square().sum(dim=1)
        self.scale = -1.0 if cosine else -2.0
        self.codes = codes.t()

    def __call__(self, rows: Tensor, count: int = 1) -> Tensor:
        """Indices of the ``count`` nearest codes of each row, nearest first: n x D -> n x count. All scores at once."""
        scores = torch.addmm(self.offset, rows, self.codes, alpha=self.scale)
        if count == 1:
            return scores.argmin(dim=1, keepdim=True)
        return scores.topk(count, dim=1, largest=False).indices


def nearest(rows: Tensor, codes: Tensor, cosine: bool = False, count: int = 1) -> Tensor:
    """Index of the code nearest to each row: n x D, C x D -> n long, or n x count, nearest first, for ``count`` > 1.

    As of :class:`Search`, with bounded memory for the scores.
    """
    search, step = Search(codes, cosine), rows_at_once(rows, len(codes))
    found = rows.new_empty((len(rows), count), dtype=torch.long)
    for start in range(0, len(rows), step):
        found[start : start + step] = search(rows[start : start + step], count)
    return found.squeeze(1) if count == 1 else found


class EmaCodebooks(KeepsDtype):
    """K codebooks of C codes: state, statistics of the update at hand, and the update itself. No gradient reaches it.

    Forward passes only collect, on this rank. :meth:`commit` sums over the ranks and moves the codes; it is a
    collective. All of it runs without waiting for the device.

    Persistent buffers are the state, the others what is pending for the next update. Buffers keep their dtype under
    ``half()``, ``bfloat16()`` and ``to(dtype)``, and when loaded from another: fp16 training casts every buffer of a
    model, and averages that gain a hundredth an update do not survive that.
    """

    codes: Tensor  # K x C x D
    sizes: Tensor  # K x C, moving average of the vectors a code gets an update
    sums: Tensor  # K x C x D, moving average of their sum
    usage: Tensor  # K x C, moving average of code frequencies
    started: Tensor  # bool
    num_updates: Tensor  # long
    revived: Tensor  # K, dead codes that restarted in the last update
    pending_sizes: Tensor  # K x (C + 1), the last row is for what must not count
    pending_sums: Tensor  # K x (C + 1) x D
    pending_usage: Tensor  # K x (C + 1), from searches that leave the codes alone
    pending_lots: Tensor  # K x P, lots of the places that dead codes may restart from; inf where there is none
    pending_rows: Tensor  # K x P x D, these places

    def __init__(
        self,
        num_codebooks: int,
        codebook_size: int,
        dim: int,
        *,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        restart_threshold: float = 0.25,
        restart_step: float = 0.2,
        unit_codes: bool = False,
    ) -> None:
        super().__init__()
        self.decay, self.epsilon, self.unit_codes = decay, epsilon, unit_codes
        self.restart_threshold, self.restart_step = restart_threshold, restart_step
        levels, size, restarts = num_codebooks, codebook_size, min(codebook_size, RESTARTS_AT_ONCE)
        self.has_vectors = False  # whether vectors are pending, and not only counts for the usage
        self.register_buffer("codes", torch.zeros(levels, size, dim))
        self.register_buffer("sizes", torch.zeros(levels, size))
        self.register_buffer("sums", torch.zeros(levels, size, dim))
        self.register_buffer("usage", torch.zeros(levels, size))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))
        self.register_buffer("revived", torch.zeros(levels), persistent=False)
        self.register_buffer("pending_sizes", torch.zeros(levels, size + 1), persistent=False)
        self.register_buffer("pending_sums", torch.zeros(levels, size + 1, dim), persistent=False)
        self.register_buffer("pending_usage", torch.zeros(levels, size + 1), persistent=False)
        self.register_buffer("pending_lots", torch.full((levels, restarts), math.inf), persistent=False)
        self.register_buffer("pending_rows", torch.zeros(levels, restarts, dim), persistent=False)

    def set_level(self, level: int, codes: Tensor, sizes: Tensor) -> None:
        """Place a level's codes (C x D) and the average number of vectors each stands for (C)."""
        self.codes[level] = F.normalize(codes, dim=1) if self.unit_codes else codes
        self.sizes[level] = sizes
        self.sums[level] = self.codes[level] * sizes.unsqueeze(1)

    def count_usage(self, codes: Tensor, valid: Tensor) -> None:
        """Count ``codes`` (n x K) where ``valid`` (n bool), for the usage statistics alone."""
        self._count(self.pending_usage, codes, valid)

    def count(self, codes: Tensor, valid: Tensor) -> None:
        """Count ``codes`` (n x K) where ``valid`` (n bool), whose vectors go to :meth:`add`."""
        self._count(self.pending_sizes, codes, valid)
        self.has_vectors = True

    def _count(self, counts: Tensor, codes: Tensor, valid: Tensor) -> None:
        target = codes.masked_fill(~valid.unsqueeze(1), self.codes.shape[1]).t()
        counts.scatter_add_(1, target, torch.ones_like(target, dtype=torch.float32))

    def add(self, level: int, rows: Tensor, codes: Tensor, valid: Tensor) -> None:
        """Remember that ``rows`` (n x D) fell on ``codes`` (n long), where ``valid`` (n bool)."""
        self.pending_sums[level].index_add_(0, codes.masked_fill(~valid, self.codes.shape[1]), rows)

    def draw_lots(self, rows: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Lots (P) and indices (P) of the valid ones of ``rows`` (n x D) that dead codes could restart from.

        A vector's lot is a hash of its own bits and the number of the update. So the winners are the same however the
        batch is cut over ranks and forwards, equal vectors have equal lots, and no random state has to be kept.
        """
        dim = rows.shape[1]
        words = rows[:, :: -(-dim // 16)].contiguous().view(torch.int32).long()
        place = torch.arange(1, words.shape[1] + 1, device=rows.device)
        mixed = ((words + 0x9E3779B9) * (place * 0x2545F4914F6CDD1D)).sum(dim=1) + self.num_updates * 0x5851F42D4C957F2D
        for _ in range(2):
            mixed = (mixed ^ (mixed >> 29)) * 0x3C79AC492BA7B653
        uniform = ((mixed >> 33) & 0xFFFFFF).to(torch.float32) / (1 << 24)
        lots = uniform.masked_fill(~valid, math.inf)
        drawn = lots.topk(min(len(lots), self.pending_lots.shape[1]), largest=False)
        return drawn.values, drawn.indices

    def add_candidates(self, level: int, lots: Tensor, rows: Tensor, vectors: Tensor) -> None:
        """Keep the best P of the pending candidates and of these: lots p, rows p x D and the codes they fell on."""
        all_lots = torch.cat([self.pending_lots[level], lots])
        all_rows = torch.cat([self.pending_rows[level], torch.lerp(vectors, rows, self.restart_step)])
        best = all_lots.topk(self.pending_lots.shape[1], largest=False)
        self.pending_lots[level] = best.values
        self.pending_rows[level] = all_rows[best.indices]

    def agree_on_candidates(self) -> None:
        """Replace the pending candidates by the best of all ranks; other ranks' rows are left 0 for the summing."""
        if distributed.world_size() == 1:
            return
        slots = self.pending_lots.shape[1]
        everyone = distributed.gather_equal(self.pending_lots).transpose(0, 1).flatten(1)
        best = everyone.topk(slots, dim=1, largest=False)
        mine = best.indices // slots == distributed.rank()
        index = (best.indices % slots).unsqueeze(2).expand_as(self.pending_rows)
        self.pending_rows.copy_(self.pending_rows.gather(1, index).masked_fill(~mine.unsqueeze(2), 0.0))
        self.pending_lots.copy_(best.values)

    def commit(self) -> None:
        """Move the codes by what all ranks have collected since the last commit, and forget it.

        Collective: the ranks have had the same kinds of searches since then, whatever vectors each brought to them.
        Where those left the codes alone, the counts are all that is sent and done.
        """
        if self.has_vectors:
            self.agree_on_candidates()
            distributed.all_reduce_sum_together(self.pending())
            self.update()
        else:
            self._update_usage(distributed.all_reduce_sum(self.pending_usage)[:, : self.codes.shape[1]])
            self.revived.zero_()
        self.discard()

    def pending(self) -> list[Tensor]:
        """What has to be summed over the ranks before :meth:`update`."""
        return [self.pending_sizes, self.pending_sums, self.pending_usage, self.pending_rows]

    def update(self) -> None:
        """Move codes, averages and usage by the pending statistics, which are those of all ranks by now."""
        size = self.codes.shape[1]
        counts, sums = self.pending_sizes[:, :size], self.pending_sums[:, :size]
        usable = (counts.sum() > 0) & sums.isfinite().all()
        self._update_usage(counts + self.pending_usage[:, :size])
        sizes = torch.lerp(counts, self.sizes, self.decay)
        sums = torch.lerp(sums, self.sums, self.decay)
        total = sizes.sum(dim=1, keepdim=True)
        smoothed = (sizes + self.epsilon) / (total + size * self.epsilon) * total
        codes = sums / smoothed.clamp_min(self.epsilon).unsqueeze(2)
        if self.unit_codes:
            codes = F.normalize(codes, dim=2)
        self.revived.copy_(self._restart_dead_codes(codes, sizes, sums) * usable)
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

    def _restart_dead_codes(self, codes: Tensor, sizes: Tensor, sums: Tensor) -> Tensor:
        """Move dead codes to candidates, in place, the deadest first; they get the even share of both averages.

        Returns:
            How many of each level were moved, K.
        """
        share = sizes.mean(dim=1, keepdim=True)
        lots, order = self.pending_lots.sort(dim=1)
        rows = self.pending_rows.gather(1, order.unsqueeze(2).expand_as(self.pending_rows))
        rows = F.normalize(rows, dim=2) if self.unit_codes else rows
        usable = lots.isfinite()
        usable[:, 1:] &= lots[:, 1:] != lots[:, :-1]  # equal vectors would make equal codes, one of them dead again
        weakest = sizes.topk(lots.shape[1], dim=1, largest=False)
        replace = usable & (weakest.values < self.restart_threshold * share)
        index = weakest.indices.unsqueeze(2).expand_as(rows)
        new_sizes = torch.where(replace, share, weakest.values)
        codes.scatter_(1, index, torch.where(replace.unsqueeze(2), rows, codes.gather(1, index)))
        sums.scatter_(1, index, torch.where(replace.unsqueeze(2), rows * share.unsqueeze(2), sums.gather(1, index)))
        sizes.scatter_(1, weakest.indices, new_sizes)
        return replace.sum(dim=1)

    def discard(self) -> None:
        """Forget what is pending."""
        for tensor in self.pending():
            tensor.zero_()
        self.pending_lots.fill_(math.inf)
        self.has_vectors = False

    def reset(self) -> None:
        """Back to the state of a new module: not started, nothing counted, nothing pending."""
        self.discard()
        state = (self.codes, self.sizes, self.sums, self.usage, self.started, self.num_updates, self.revived)
        for tensor in state:
            tensor.zero_()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        own = dict(self.named_buffers(recurse=False))
        saved = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        state_dict.update({prefix + name: tensor.to(own[name].dtype) for name, tensor in saved.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)
        device = next(self.buffers()).device  # with assign=True the state's, which pending tensors have to follow
        for name in self._non_persistent_buffers_set:
            setattr(self, name, torch.zeros_like(own[name], device=device))
        self.discard()
