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
    used_codes: int  # number of codes with a count above 0
    used_share: float  # used_codes / codebook_size
    entropy_bits: float  # of the code frequencies; 0 if nothing was counted
    perplexity: float  # 2 ** entropy_bits: as many codes, used uniformly, have this entropy
    dead_codes: int  # number of codes below the threshold, see level_statistics; 0 if nothing was counted


def level_statistics(counts: Tensor, dead_threshold: float = 0.0) -> list[LevelStatistics]:
    """Statistics of each level.

    Args:
        counts: K x C, counts or frequencies of the codes, any real dtype.
        dead_threshold: a code is dead if its count is 0, or below this fraction of the mean count of its level.

    Raises:
        ValueError: ``counts`` has another number of dimensions.
    """
    if counts.dim() != 2:
        raise ValueError(f"counts must be K x C (levels x codes), got shape {tuple(counts.shape)}")
    counts = counts.detach().double().cpu()
    size = counts.shape[1]
    totals = counts.sum(dim=1)
    frequencies = counts / totals.clamp_min(torch.finfo(torch.float64).tiny).unsqueeze(1)
    entropies = -torch.xlogy(frequencies, frequencies).sum(dim=1) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    result = []
    rows = zip(counts, frequencies, entropies.tolist(), strict=True)
    for level, (row, frequency, entropy) in enumerate(rows, start=1):
        used = int((row > 0).sum())
        dead = int(((row <= 0) | (frequency < dead_threshold / size)).sum())
        result.append(LevelStatistics(level, size, used, used / size, entropy, 2.0**entropy, dead if used else 0))
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
