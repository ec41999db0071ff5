"""Statistics of code usage: share of used codes, entropy, perplexity, dead codes; and residual energy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LevelStatistics:
    """Usage of the codes of one level, from their counts or frequencies."""

    level: int  # from 1
    codebook_size: int
    used_codes: int  # number of codes that are not dead
    used_share: float  # used_codes / codebook_size
    entropy_bits: float  # of the code frequencies; 0 if nothing was counted
    perplexity: float  # 2 ** entropy_bits: as many codes, used uniformly, have this entropy
    dead_codes: int  # number of codes below the threshold, see dead_codes


def dead_codes(counts: Tensor, threshold: float = 0.0) -> Tensor:
    """Which codes are dead, K x C bool; all others are used. The one definition for logs, reports and statistics.

    Args:
        counts: K x C, counts or frequencies of the codes, any real dtype.
        threshold: a code is dead if its count is 0, or below this fraction of the mean count of its level.
    """
    counts = counts.float()  # one precision, so that logs and reports agree
    return (counts <= 0) | (counts * counts.shape[1] < threshold * counts.sum(1, keepdim=True))


def level_statistics(counts: Tensor, dead_threshold: float = 0.0) -> list[LevelStatistics]:
    """Statistics of each level.

    Args:
        counts: K x C, counts or frequencies of the codes, any real dtype.
        dead_threshold: as :func:`dead_codes` takes it.

    Raises:
        ValueError: ``counts`` has another number of dimensions.
    """
    if counts.dim() != 2:
        raise ValueError(f"counts must be K x C (levels x codes), got shape {tuple(counts.shape)}")
    dead_counts = dead_codes(counts.detach(), dead_threshold).sum(dim=1).tolist()
    counts = counts.detach().double().cpu()
    size = counts.shape[1]
    totals = counts.sum(dim=1)
    frequencies = counts / totals.clamp_min(torch.finfo(torch.float64).tiny).unsqueeze(1)
    entropies = -torch.xlogy(frequencies, frequencies).sum(dim=1) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    result = []
    for level, (dead, entropy) in enumerate(zip(dead_counts, entropies.tolist(), strict=True), start=1):
        used = size - dead
        result.append(LevelStatistics(level, size, used, used / size, entropy, 2.0**entropy, dead))
    return result


def code_counts(codes: Tensor, codebook_size: int, padding_mask: Tensor | None = None) -> Tensor:
    """Count each code of ``codes`` (... x K long) outside ``padding_mask`` (..., True = padding): K x C long.

    Raises:
        ValueError: a code is not in 0..C-1.
    """
    rows = codes.reshape(-1, codes.shape[-1])
    if padding_mask is not None:
        rows = rows[~padding_mask.reshape(-1)]
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < codebook_size:
        raise ValueError(f"codes span {int(rows.min())}..{int(rows.max())}, expected 0..{codebook_size - 1}")
    return torch.stack([torch.bincount(level, minlength=codebook_size) for level in rows.unbind(dim=1)])


def corpus_residual_energy(batches: Iterable[tuple[Tensor, int]]) -> Tensor:
    """Residual energy of a corpus after each level: K, float64, on the CPU.

    All vectors have unit norm before the first level, so the batches are averaged by their number of vectors.

    Args:
        batches: ``residual_energy`` (K) of each batch, and its number of valid vectors.

    Raises:
        ValueError: no batch has a vector.
    """
    weighted = [(energy.detach().double().cpu(), count) for energy, count in batches]
    total = sum(count for _, count in weighted)
    if total == 0:
        raise ValueError("residual energy of no vector is not defined")
    return torch.stack([energy * count for energy, count in weighted]).sum(dim=0) / total
