"""Residual quantization: a vector as the sum of one code of each of K codebooks. K = 1 is vector quantization."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bridle_fairseq.quantization.codebook import EmaCodebooks, Search, nearest, rows_at_once
from bridle_fairseq.quantization.kmeans import kmeans
from bridle_fairseq.quantization.result import QuantizedResult, StraightThrough
from bridle_fairseq.quantization.statistics import LevelStatistics, level_statistics
from bridle_fairseq.utils import distributed

START_ROWS_PER_CODE = 64
NORM_FLOOR = 1e-8


class ResidualQuantizer(nn.Module):
    """Residual quantizer with EMA codebooks; ``num_codebooks=1`` with ``metric="cosine"`` is the quantizer of BEATs.

    ``r_0 = z / |z|``; at level k, ``c_k`` is the code nearest to ``r_{k-1}`` and ``r_k = r_{k-1} - e_{k,c_k}``.

    Args:
        dim: width D of the vectors.
        num_codebooks: levels K.
        codebook_size: codes C of a level.
        metric: "euclidean"; or "cosine": codes are searched by direction. With one codebook the codes have unit norm;
            with several they keep the residuals' own length, or subtracting them would make small residuals grow.
        decay: of all moving averages, a step an update.
        epsilon: Laplace smoothing of the count averages.
        commitment_weight: weight of the commitment loss in ``QuantizedResult.loss``.
        init: "kmeans" over the first training vectors of all ranks, or "uniform".
        kmeans_iterations: iterations of that k-means.
        restart_threshold: a code whose count average is under this fraction of the even share is dead and restarts.
        restart_step: a dead code restarts beside the code that a vector of the batch fell on, this fraction of the way
            to the vector, and so shares that code's vectors. 1 restarts on the vector itself, which in many dimensions
            is far from all others.
        seed: of the start.
    """

    def __init__(
        self,
        dim: int,
        num_codebooks: int = 4,
        codebook_size: int = 256,
        *,
        metric: str = "euclidean",
        decay: float = 0.99,
        epsilon: float = 1e-5,
        commitment_weight: float = 0.25,
        init: str = "kmeans",
        kmeans_iterations: int = 10,
        restart_threshold: float = 0.25,
        restart_step: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric is {metric!r}, expected 'euclidean' or 'cosine'")
        if init not in ("kmeans", "uniform"):
            raise ValueError(f"init is {init!r}, expected 'kmeans' or 'uniform'")
        self.dim, self.num_codebooks, self.codebook_size = dim, num_codebooks, codebook_size
        self.cosine, self.init, self.kmeans_iterations, self.seed = metric == "cosine", init, kmeans_iterations, seed
        self.commitment_weight = commitment_weight
        self.codebooks = EmaCodebooks(
            num_codebooks,
            codebook_size,
            dim,
            decay=decay,
            epsilon=epsilon,
            restart_threshold=restart_threshold,
            restart_step=restart_step,
            unit_codes=self.cosine and num_codebooks == 1,
        )
        self.known_started = False  # as the host knows it: spares a look at the device's `started` in every forward

    @property
    def started(self) -> Tensor:
        """Bool scalar: whether the codebooks have been started."""
        return self.codebooks.started

    @property
    def usage(self) -> Tensor:
        """K x C float32: moving average of code frequencies."""
        return self.codebooks.usage

    def forward(self, z: Tensor, padding_mask: Tensor | None = None) -> QuantizedResult:
        """Quantize ``z`` (... x D) outside ``padding_mask`` (..., True = padding) with the present codebooks.

        In training mode the codebooks are started if they are not (a collective: every rank must be here, if with
        nothing), and the batch's statistics are kept for :meth:`commit`. In eval mode no state changes.

        Vectors that are not finite stay out of all statistics, but not out of the result: the loss shows them.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows, length, valid = self._rows(z, padding_mask)
            if self.training:
                self._start_if_needed(rows.detach(), valid)
            unit = rows / length.clamp_min(NORM_FLOOR)
            elements = valid.sum().clamp_min(1) * self.dim
            with torch.no_grad():
                codes, energies = self._search(unit.detach(), valid, collect=self.training)
                if self.training:
                    self._offer_restarts(rows.detach(), unit.detach(), codes, valid)
                quantized = self._sum_of_codes(codes)
                energy = energies.masked_fill(~valid, 0.0).sum(dim=1)
                loss = energy[1:].sum() / (elements * self.num_codebooks)
                fault = energies[0] - energies[0]  # 0, and NaN at vectors that are not finite
                quantized += fault.unsqueeze(1)
                commitment = loss + fault.sum()
                pull = self._mean_residual(unit.detach(), codes).mul_(2 / elements) if unit.requires_grad else None
            if pull is not None:
                quantized, commitment = StraightThrough.apply(unit, quantized, commitment, pull)
        return QuantizedResult(
            quantized.to(z.dtype).view(z.shape),
            codes.view(*z.shape[:-1], self.num_codebooks),
            loss,
            commitment,
            energy[1:] / energy[0].clamp_min(NORM_FLOOR),
            self.commitment_weight,
        )

    @torch.no_grad()
    def encode(self, z: Tensor, padding_mask: Tensor | None = None, codes_per_level: int = 1) -> Tensor:
        """Codes of ``z`` (... x D): ... x K, or ... x K x m with the m nearest codes of each level, nearest first.

        The codebooks stay as they are; in training mode they are started if they are not, and the codes are counted
        for the usage statistics.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows, length, valid = self._rows(z, padding_mask)
            if self.training:
                self._start_if_needed(rows, valid)
            found, _ = self._search(rows / length.clamp_min(NORM_FLOOR), valid, codes_per_level)
            if self.training:
                self.codebooks.count_usage(found if codes_per_level == 1 else found[:, :, 0], valid)
        return found.view(*z.shape[:-1], *found.shape[1:])

    def decode(self, codes: Tensor, levels: Tensor | None = None) -> Tensor:
        """Sum of the codes' vectors: ... x K long -> ... x D float32.

        ``levels`` (B, the first axis of ``codes``): each item's sum is over so many levels only, the first ones.

        Raises:
            ValueError: codes of another number of levels, or that no codebook has.
        """
        depth, size = self.num_codebooks, self.codebook_size
        if codes.shape[-1] != depth or (codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < size):
            found = f"{tuple(codes.shape)} codes" + f" of {codes.min()} to {codes.max()}" * bool(codes.numel())
            raise ValueError(f"{found}; expected {depth} levels of codes 0 to {size - 1}")
        weights = None
        if levels is not None:
            kept = (torch.arange(depth, device=codes.device) < levels[:, None]).to(self.codebooks.codes.dtype)
            weights = kept.view(-1, *[1] * (codes.dim() - 2), depth).expand(codes.shape).reshape(-1, depth)
        return self._sum_of_codes(codes.reshape(-1, depth), weights).view(*codes.shape[:-1], self.dim)

    def _sum_of_codes(self, codes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sum over levels of the codes' vectors (n x K long -> n x D), times K ``weights``; no level's are kept."""
        place = codes + self.codebook_size * torch.arange(self.num_codebooks, device=codes.device)
        weights = None if weights is None else weights.expand(place.shape).contiguous()
        return F.embedding_bag(place, self.codebooks.codes.flatten(0, 1), mode="sum", per_sample_weights=weights)

    @torch.no_grad()
    def start(self, z: Tensor, padding_mask: Tensor | None = None) -> None:
        """Start new codebooks from these vectors (... x D) of all ranks, in place of the first training forward's.

        For when one batch is small: 64 vectors for each code and more make codebooks that fit other vectors too.
        A collective; without a valid vector on any rank the codebooks are left not started.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows, _, valid = self._rows(z, padding_mask)
            self.reset()
            self.known_started = self._start(rows[valid])

    @torch.no_grad()
    def start_if_needed(self, z: Tensor, padding_mask: Tensor | None = None) -> None:
        """As :meth:`start`, if no codebooks have been started: what the first training forward does by itself."""
        if not self.known_started:
            with torch.autocast(z.device.type, enabled=False):
                rows, _, valid = self._rows(z, padding_mask)
                self._start_if_needed(rows, valid)

    @torch.no_grad()
    def commit(self) -> None:
        """Move the codebooks by what was collected since the last commit. Collective, once an update on every rank."""
        self.codebooks.commit()

    @torch.no_grad()
    def discard(self) -> None:
        """Forget what was collected since the last commit (the update was thrown away)."""
        self.codebooks.discard()

    @torch.no_grad()
    def reset(self) -> None:
        """Forget codebooks and statistics; the next training forward starts new ones."""
        self.codebooks.reset()
        self.known_started = False

    def statistics(self) -> list[LevelStatistics]:
        """Use of each level's codes, from the moving average of their frequencies."""
        return level_statistics(self.usage, self.codebooks.restart_threshold)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.known_started = False
        super()._load_from_state_dict(*args, **kwargs)

    def _rows(self, z: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """``z`` as n x D float32 rows, 0 and without gradient at padding; their lengths, n x 1; which count, n bool."""
        rows = z.reshape(-1, self.dim).float()
        if padding_mask is not None:
            rows = rows.masked_fill(padding_mask.reshape(-1, 1), 0.0)
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        valid = length.detach().squeeze(1).isfinite()
        return rows, length, valid if padding_mask is None else valid & ~padding_mask.reshape(-1)

    def _search(self, unit: Tensor, valid: Tensor, count: int = 1, collect: bool = False) -> tuple[Tensor, Tensor]:
        """Codes of unit rows (n x K, or n x K x m), and ``|r_k|^2`` before and after each level ((K + 1) x n).

        As many rows at a time go through all levels as a cache holds: to write and read the residuals of all rows at
        every level takes longer than to search them. ``collect``: rows that are ``valid`` (n) move the codes at the
        next commit.
        """
        books = self.codebooks
        searches = [Search(codebook, self.cosine) for codebook in books.codes]
        found = torch.empty((len(unit), self.num_codebooks, count), dtype=torch.long, device=unit.device)
        energies = unit.new_empty((self.num_codebooks + 1, len(unit)))
        step = rows_at_once(unit, self.codebook_size)
        for start in range(0, len(unit), step):
            part = slice(start, start + step)
            residual = unit[part].clone()
            energies[0, part] = _energy(residual)
            for level, search in enumerate(searches):
                codes = search(residual, count)
                found[part, level] = codes
                if collect:
                    books.add(level, residual, codes[:, 0], valid[part])
                residual -= F.embedding(codes[:, 0], books.codes[level])
                energies[level + 1, part] = _energy(residual)
        found = found.squeeze(2) if count == 1 else found
        if collect:
            books.count(found, valid)
        return found, energies

    def _offer_restarts(self, rows: Tensor, unit: Tensor, codes: Tensor, valid: Tensor) -> None:
        """Draw some of the rows, and offer what each level sees of them as places for its dead codes."""
        lots, drawn = self.codebooks.draw_lots(rows, valid)
        residual = unit[drawn]
        for level, codebook in enumerate(self.codebooks.codes):
            vectors = F.embedding(codes[drawn, level], codebook)
            self.codebooks.add_candidates(level, lots, residual, vectors)
            residual = residual - vectors

    def _mean_residual(self, unit: Tensor, codes: Tensor) -> Tensor:
        """Mean of r_1 .. r_K (n x D): code j is missing in K - j + 1 of them."""
        levels = self.num_codebooks
        weights = torch.arange(levels, 0, -1, device=unit.device, dtype=unit.dtype) / levels
        return self._sum_of_codes(codes, -weights).add_(unit)

    @torch.no_grad()
    def _start_if_needed(self, rows: Tensor, valid: Tensor) -> None:
        if self.known_started:
            return
        self.known_started = bool(self.started)
        if not self.known_started:
            self.known_started = self._start(rows[valid])

    def _start(self, rows: Tensor) -> bool:
        """Start all codebooks from the valid rows of all ranks; False where no rank has any."""
        sample, total = distributed.gather_sample(rows, START_ROWS_PER_CODE * self.codebook_size, self.seed)
        if total == 0:
            return False
        residual = F.normalize(sample, dim=1, eps=NORM_FLOOR)
        for level in range(self.num_codebooks):
            residual = residual - self._start_level(level, residual, total / len(sample))
        for tensor in (self.codebooks.codes, self.codebooks.sizes, self.codebooks.sums):
            distributed.broadcast(tensor)
        self.codebooks.started.fill_(True)
        return True

    def _start_level(self, level: int, residual: Tensor, rows_per_row: float) -> Tensor:
        """Start one level from the residuals before it, and return what it makes of them (n x D)."""
        seed = self.seed + level
        if self.init == "uniform":
            draw = torch.Generator().manual_seed(seed)
            codes = (torch.rand(self.codebook_size, self.dim, generator=draw) * 2 - 1) / self.codebook_size
            codes = codes.to(residual.device)
            sizes = residual.new_full((self.codebook_size,), len(residual) * rows_per_row / self.codebook_size)
        else:
            codes, counts = kmeans(
                residual, self.codebook_size, iterations=self.kmeans_iterations, cosine=self.cosine, seed=seed
            )
            sizes = counts * rows_per_row
        self.codebooks.set_level(level, codes, sizes)
        codebook = self.codebooks.codes[level]
        return F.embedding(nearest(residual, codebook, self.cosine), codebook)


def _energy(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1).square()
