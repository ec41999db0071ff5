"""Residual quantization: a vector as the sum of one code of each of K codebooks. K = 1 is vector quantization.

Several books are residual quantizers in parallel, each of its own share of the vector's dimensions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bridle_fairseq.quantization.codebook import EmaCodebooks
from bridle_fairseq.quantization.initialization import init_levels
from bridle_fairseq.quantization.search import CodebookSearch, row_blocks
from bridle_fairseq.quantization.statistics import LevelStatistics, level_statistics

EPS = 1e-8


class QuantizedResult(NamedTuple):
    """Result of quantizing ``z`` (... x D)."""

    quantized: Tensor  # ... x D, z_q with the straight-through gradient, dtype of z
    codes: Tensor  # ... x K long, the nearest code of each level; valid indices without meaning at padding
    codebook_loss: Tensor  # scalar float32, mean over levels of mse(sg[r_{k-1}], q_k); no gradient under EMA
    commitment_loss: Tensor  # scalar float32, mean over levels of mse(r_{k-1}, sg[q_k])
    residual_energy: Tensor  # K, mean |r_k|^2 / mean |r_0|^2
    commitment_weight: float = 0.25

    @property
    def loss(self) -> Tensor:
        """L_cb: the codebook loss plus the weighted commitment loss."""
        return self.codebook_loss.detach() + self.commitment_weight * self.commitment_loss


class ResidualQuantizer(nn.Module):
    """Residual quantizer with EMA codebooks; ``num_codebooks=1`` with ``metric="cosine"`` is the quantizer of BEATs.

    Args:
        dim: width D of the vectors.
        num_codebooks: number of levels K.
        codebook_size: number of codes C of a level.
        metric: "euclidean"; or "cosine": codes are searched by direction. A single cosine codebook has codes of unit
            norm. Several keep the norms of the residuals: subtracting unit vectors would make small residuals grow.
        decay: decay of all moving averages, per update.
        epsilon: Laplace smoothing of the average counts.
        commitment_weight: weight of the commitment loss in ``QuantizedResult.loss``.
        init: "kmeans" on the first training vectors of all ranks, or "uniform".
        kmeans_iterations: iterations of that k-means.
        restart_threshold: a code whose average count is below this fraction of its level's mean is dead and restarts.
        restart_step: a dead code restarts next to a code in use: at this fraction of the way from the code to a vector
            of the batch that was assigned to it. The two codes then share its vectors. 1 restarts on the vector itself,
            which in many dimensions is far from all others.
        seed: seed of the initialization.
        num_books: number of books, a divisor of K and D; the first K / num_books codebooks are the levels of the first
            book, and so on.
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
        num_books: int = 1,
    ) -> None:
        super().__init__()
        if num_codebooks % num_books or dim % num_books:
            raise ValueError(
                f"{num_books} books; expected a divisor of {num_codebooks} codebooks and of {dim} dimensions"
            )
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
            num_books=num_books,
        )
        self._initialized_cache = False  # `codebooks.started` on the host; avoids a device synchronization per forward

    @property
    def initialized(self) -> bool:
        """Whether the codebooks are initialized. Synchronizes with the device until they are, and no more then."""
        if not self._initialized_cache:
            self._initialized_cache = bool(self.codebooks.started)
        return self._initialized_cache

    @property
    def usage(self) -> Tensor:
        """K x C float32: moving average of the code frequencies."""
        return self.codebooks.usage

    def forward(self, z: Tensor, padding_mask: Tensor | None = None) -> QuantizedResult:
        """Quantize ``z`` (... x D) outside ``padding_mask`` (..., True = padding) with the current codebooks.

        In training mode the first call initializes the codebooks. It is a collective: every rank must call, even if it
        has no data. Each call collects statistics for :meth:`commit`. In eval mode no state changes.

        A vector that is not finite is left out of the statistics, but its result and the commitment loss are NaN.
        """
        if self.training:
            self.init_codebooks_if_needed(z, padding_mask)
        with torch.autocast(z.device.type, enabled=False):
            rows, norm, valid = self._flatten(z, padding_mask)  # n x D, n x 1, n
            unit = rows / norm.clamp_min(EPS)  # r_0 = z / |z|: n x D
            codes = unit.new_empty((len(unit), self.num_codebooks), dtype=torch.long)
            energy = unit.new_empty((self.num_codebooks + 1, len(unit)))  # |r_0|^2 .. |r_K|^2
            searches = self._searches()
            with torch.no_grad():
                for block in row_blocks(unit, self.codebook_size):  # b rows go through all levels while in the cache
                    residual = unit[block].clone()  # r_0: b x D
                    energy[0, block] = squared_norm(residual)
                    for k, search in enumerate(searches):
                        nearest = search.nearest(residual)  # c_k: b
                        code_vectors = F.embedding(nearest, self.codebooks.codes[k])  # q_k = e_k[c_k]: b x D
                        if self.training:
                            self.codebooks.add_sums(k, residual, nearest, valid[block])
                        residual -= code_vectors  # r_k = r_{k-1} - q_k
                        codes[block, k], energy[k + 1, block] = nearest, squared_norm(residual)
                quantized = self._sum_of_codes(codes)  # z_q = q_1 + ... + q_K: n x D
                quantized += nan_unless_finite(energy[0]).unsqueeze(1)
                if self.training:
                    self.codebooks.add_counts(codes, valid)
                    self.codebooks.add_candidates(rows, unit, codes, valid)
            quantized = StraightThrough.apply(unit, quantized)
            codebook_loss, commitment_loss, residual_energy = self._losses(unit, codes, energy, valid)
        return QuantizedResult(
            quantized.to(z.dtype).view(z.shape),
            codes.view(*z.shape[:-1], self.num_codebooks),
            codebook_loss,
            commitment_loss,
            residual_energy,
            self.commitment_weight,
        )

    def _losses(self, unit: Tensor, codes: Tensor, energy: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codebook loss, commitment loss and residual energy (K) of the valid rows.

        ``r_{k-1} - q_k = r_k``, so both terms of L_cb are the sum of ``|r_k|^2`` over rows and levels, divided by
        ``n D K``. With fixed codes, each ``r_k`` moves with ``r_0``: the gradient at ``r_0`` is ``2 / (n D)`` times the
        mean of ``r_k`` over levels.
        """
        with torch.no_grad():
            num_values = valid.sum().clamp_min(1) * self.dim  # n D
            total = energy.masked_fill(~valid, 0.0).sum(dim=1)  # K + 1
            loss = total[1:].sum() / (num_values * self.num_codebooks)
            residual_energy = total[1:] / total[0].clamp_min(EPS)
            commitment = loss + nan_unless_finite(energy[0]).sum()
            gradient = self._mean_residual(unit, codes).mul_(2 / num_values) if unit.requires_grad else None
        if gradient is not None:
            commitment = KnownGradient.apply(unit, commitment, gradient)
        return loss, commitment, residual_energy

    def _mean_residual(self, unit: Tensor, codes: Tensor) -> Tensor:
        """Mean of r_1 .. r_K, n x D: q_j is subtracted in K - j + 1 of them."""
        levels = self.num_codebooks
        weights = torch.arange(levels, 0, -1, device=unit.device, dtype=unit.dtype) / levels  # K
        return self._sum_of_codes(codes, -weights).add_(unit)

    @torch.no_grad()
    def encode(self, z: Tensor, padding_mask: Tensor | None = None, codes_per_level: int = 1) -> Tensor:
        """Codes of ``z`` (... x D): ... x K, or ... x K x m with the m nearest codes of each level, nearest first.

        The codebooks do not change. In training mode the first call initializes them, and the codes are counted for the
        usage statistics.
        """
        if self.training:
            self.init_codebooks_if_needed(z, padding_mask)
        with torch.autocast(z.device.type, enabled=False):
            rows, norm, valid = self._flatten(z, padding_mask)  # n x D, n x 1, n
            unit = rows / norm.clamp_min(EPS)
            codes = unit.new_empty((len(unit), self.num_codebooks, codes_per_level), dtype=torch.long)
            searches = self._searches()
            for block in row_blocks(unit, self.codebook_size):
                residual = unit[block].clone()  # b x D
                for k, search in enumerate(searches):
                    nearest = search.nearest_m(residual, codes_per_level)  # b x m
                    codes[block, k] = nearest
                    residual -= F.embedding(nearest[:, 0], self.codebooks.codes[k])
            if self.training:
                self.codebooks.add_usage(codes[:, :, 0], valid)
        codes = codes.view(*z.shape[:-1], self.num_codebooks, codes_per_level)
        return codes.squeeze(-1) if codes_per_level == 1 else codes

    def decode(self, codes: Tensor, levels: Tensor | None = None) -> Tensor:
        """Sum of the code vectors: ... x K long -> ... x D float32.

        Args:
            codes: ... x K.
            levels: B, if the first axis of ``codes`` is a batch: how many of the first levels are summed for each item.

        Raises:
            ValueError: another number of levels, or codes out of range.
        """
        depth, size = self.num_codebooks, self.codebook_size
        if codes.shape[-1] != depth or (codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < size):
            given = f"{tuple(codes.shape)} codes" + f" of {codes.min()} to {codes.max()}" * bool(codes.numel())
            raise ValueError(f"{given}; expected {depth} levels of codes 0 to {size - 1}")
        weights = None
        if levels is not None:
            kept = (torch.arange(depth, device=codes.device) < levels[:, None]).to(self.codebooks.codes.dtype)  # B x K
            weights = kept.view(-1, *[1] * (codes.dim() - 2), depth).expand(codes.shape).reshape(-1, depth)
        return self._sum_of_codes(codes.reshape(-1, depth), weights).view(*codes.shape[:-1], self.dim)

    def _sum_of_codes(self, codes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Weighted sum over levels of the code vectors: n x K (weights K or n x K) -> n x D. No n x K x D is made."""
        index = codes + self.codebook_size * torch.arange(self.num_codebooks, device=codes.device)
        weights = None if weights is None else weights.expand(index.shape).contiguous()
        table = self.codebooks.codes.flatten(0, 1)  # K x C x D -> (K * C) x D
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weights)

    def init_codebooks(self, z: Tensor, padding_mask: Tensor | None = None) -> None:
        """Initialize new codebooks from ``z`` (... x D) of all ranks, instead of from the first training forward.

        Use it where one batch is small: codebooks from 64 or more vectors per code fit other vectors too. Collective.
        If no rank has a valid vector, the codebooks stay uninitialized.
        """
        self.reset()
        self.init_codebooks_if_needed(z, padding_mask)

    @torch.no_grad()
    def init_codebooks_if_needed(self, z: Tensor, padding_mask: Tensor | None = None) -> None:
        """As :meth:`init_codebooks`, but does nothing if the codebooks are initialized."""
        if self.initialized:
            return
        with torch.autocast(z.device.type, enabled=False):
            rows, norm, valid = self._flatten(z, padding_mask)
            self._initialized_cache = init_levels(
                self.codebooks,
                rows[valid] / norm[valid].clamp_min(EPS),
                init=self.init,
                kmeans_iterations=self.kmeans_iterations,
                cosine=self.cosine,
                seed=self.seed,
            )

    @torch.no_grad()
    def commit(self) -> None:
        """Update the codebooks with what was collected since the last commit. Collective; once per optimizer update."""
        self.codebooks.commit()

    def discard(self) -> None:
        """Discard what was collected since the last commit, for an update that was skipped."""
        self.codebooks.discard()

    @torch.no_grad()
    def reset(self) -> None:
        """Discard codebooks and statistics; the next training forward initializes new ones."""
        self.codebooks.reset()
        self._initialized_cache = False

    def statistics(self) -> list[LevelStatistics]:
        """Usage of each level's codes, from the moving average of their frequencies."""
        return level_statistics(self.usage, self.codebooks.restart_threshold)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._initialized_cache = False
        super()._load_from_state_dict(*args, **kwargs)

    def _flatten(self, z: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of ``z`` (n x D float32, 0 without gradient at padding), their norms (n x 1), valid rows (n)."""
        rows = z.reshape(-1, self.dim).float()
        if padding_mask is not None:
            rows = rows.masked_fill(padding_mask.reshape(-1, 1), 0.0)
        norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        valid = norm.detach().squeeze(1).isfinite()
        return rows, norm, valid if padding_mask is None else valid & ~padding_mask.reshape(-1)

    def _searches(self) -> list[CodebookSearch]:
        return [CodebookSearch(codebook, self.cosine) for codebook in self.codebooks.codes]


class StraightThrough(torch.autograd.Function):
    """Forward: ``quantized``. Backward: its gradient goes to ``unit``. Both n x D."""

    @staticmethod
    def forward(ctx: Any, unit: Tensor, quantized: Tensor) -> Tensor:
        return quantized

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class KnownGradient(torch.autograd.Function):
    """Forward: the scalar ``value``. Backward: ``gradient``, the known gradient of ``value`` with respect to ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * outer, None, None


def squared_norm(rows: Tensor) -> Tensor:
    """|r|^2 of each row: n x D -> n."""
    return torch.linalg.vector_norm(rows, dim=1).square()


def nan_unless_finite(x: Tensor) -> Tensor:
    """0 where ``x`` is finite, else NaN. Added to a result, it makes the loss show bad input."""
    return x - x
