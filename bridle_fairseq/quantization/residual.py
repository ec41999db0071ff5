"""Residual quantization: a vector as the sum of one code of each of K codebooks. K = 1 is vector quantization."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bridle_fairseq.nn import distributed
from bridle_fairseq.quantization.codebook import EmaCodebooks, nearest
from bridle_fairseq.quantization.kmeans import kmeans
from bridle_fairseq.quantization.statistics import LevelStatistics, level_statistics

START_ROWS_PER_CODE = 64
NORM_FLOOR = 1e-8


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
        self._known_started = False  # spares a look at the device's `started` in every forward

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
            rows, valid = self._rows(z, padding_mask)
            if self.training:
                self._start_if_needed(rows.detach(), valid)
            unit = F.normalize(rows, dim=1, eps=NORM_FLOOR)
            with torch.no_grad():
                quantized, mean_residual, codes, energies = self._quantize(unit.detach(), rows.detach(), valid)
            elements = valid.sum().clamp_min(1) * self.dim
            loss = energies[1:].sum() / (elements * self.num_codebooks)
            # the gradient of mean_k |r_k|^2 at r_0 is that of 2 r_0 . sg[mean_k r_k], for all levels in one product
            pull = 2 * (unit * mean_residual).sum() / elements
            commitment = loss + (pull - pull.detach())
            straight_through = quantized + (unit - unit.detach())
        return QuantizedResult(
            straight_through.to(z.dtype).view(z.shape),
            codes.view(*z.shape[:-1], self.num_codebooks),
            loss,
            commitment,
            energies[1:] / energies[0].clamp_min(NORM_FLOOR),
            self.commitment_weight,
        )

    @torch.no_grad()
    def encode(self, z: Tensor, padding_mask: Tensor | None = None, codes_per_level: int = 1) -> Tensor:
        """Codes of ``z`` (... x D): ... x K, or ... x K x m with the m nearest codes of each level, nearest first.

        The codebooks stay as they are; in training mode they are started if they are not, and the codes are counted
        for the usage statistics.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows, valid = self._rows(z, padding_mask)
            if self.training:
                self._start_if_needed(rows, valid)
            residual = F.normalize(rows, dim=1, eps=NORM_FLOOR)
            found = []
            for level, codebook in enumerate(self.codebooks.codes):
                codes = nearest(residual, codebook, self.cosine, codes_per_level)
                first = codes if codes_per_level == 1 else codes[:, 0]
                if self.training:
                    self.codebooks.add_usage(level, first, valid)
                residual = residual - F.embedding(first, codebook)
                found.append(codes)
        return torch.stack(found, dim=1).view(*z.shape[:-1], self.num_codebooks, *found[0].shape[1:])

    def decode(self, codes: Tensor, levels: Tensor | None = None) -> Tensor:
        """Sum of the codes' vectors: ... x K long -> ... x D float32.

        ``levels`` (B, the first axis of ``codes``): each item's sum is over so many levels only, the first ones.
        """
        vectors = [
            F.embedding(index, codebook) for index, codebook in zip(codes.unbind(-1), self.codebooks.codes, strict=True)
        ]
        if levels is not None:
            kept = levels.view(-1, *[1] * (codes.dim() - 1))
            vectors = [vector * (kept > level) for level, vector in enumerate(vectors)]
        return torch.stack(vectors).sum(dim=0) if len(vectors) > 1 else vectors[0]

    @torch.no_grad()
    def start(self, z: Tensor, padding_mask: Tensor | None = None) -> None:
        """Start new codebooks from these vectors (... x D) of all ranks, in place of the first training forward's.

        For when one batch is small: 64 vectors for each code and more make codebooks that fit other vectors too.
        A collective; without a valid vector on any rank the codebooks are left not started.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows, valid = self._rows(z, padding_mask)
            self.reset()
            self._known_started = self._start(rows[valid])

    @torch.no_grad()
    def commit(self) -> None:
        """Move the codebooks by what was collected since the last commit. Collective, once an update on every rank."""
        self.codebooks.agree_on_candidates()
        distributed.all_reduce_sum_together(self.codebooks.pending())
        self.codebooks.update()
        self.codebooks.discard()

    @torch.no_grad()
    def discard(self) -> None:
        """Forget what was collected since the last commit (the update was thrown away)."""
        self.codebooks.discard()

    @torch.no_grad()
    def reset(self) -> None:
        """Forget codebooks and statistics; the next training forward starts new ones."""
        self.codebooks.reset()
        self._known_started = False

    def statistics(self) -> list[LevelStatistics]:
        """Use of each level's codes, from the moving average of their frequencies."""
        return level_statistics(self.usage, self.codebooks.restart_threshold)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._known_started = False
        super()._load_from_state_dict(*args, **kwargs)

    def _rows(self, z: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """``z`` as n x D float32 rows, 0 and without gradient at padding, and which of them count (n bool)."""
        rows = z.reshape(-1, self.dim).float()
        if padding_mask is not None:
            rows = rows.masked_fill(padding_mask.reshape(-1, 1), 0.0)
        valid = torch.linalg.vector_norm(rows.detach(), dim=1).isfinite()
        return rows, valid if padding_mask is None else valid & ~padding_mask.reshape(-1)

    def _quantize(self, unit: Tensor, rows: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Search all levels: sum of codes (n x D), mean of r_1 .. r_K (n x D), codes (n x K), energies (K + 1)."""
        if self.training:
            lots, drawn = self.codebooks.draw_lots(rows, valid)
        residual, quantized, residual_sum = unit.clone(), torch.zeros_like(unit), torch.zeros_like(unit)
        found, energies = [], [_energy(residual, valid)]
        for level, codebook in enumerate(self.codebooks.codes):
            codes = nearest(residual, codebook, self.cosine)
            vectors = F.embedding(codes, codebook)
            if self.training:
                self.codebooks.add(level, residual, codes, valid)
                self.codebooks.add_candidates(level, lots, residual[drawn], vectors[drawn])
            residual -= vectors
            quantized += vectors
            residual_sum += residual
            found.append(codes)
            energies.append(_energy(residual, valid))
        return quantized, residual_sum.div_(self.num_codebooks), torch.stack(found, dim=1), torch.stack(energies)

    @torch.no_grad()
    def _start_if_needed(self, rows: Tensor, valid: Tensor) -> None:
        if self._known_started:
            return
        self._known_started = bool(self.started)
        if not self._known_started:
            self._known_started = self._start(rows[valid])

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


def _energy(rows: Tensor, valid: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1).square().masked_fill(~valid, 0.0).sum()
