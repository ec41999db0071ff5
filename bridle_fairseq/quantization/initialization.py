"""Initialization of codebooks, level by level, from vectors of all ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bridle_fairseq.quantization.codebook import EmaCodebooks
from bridle_fairseq.quantization.kmeans import kmeans
from bridle_fairseq.quantization.search import nearest_code
from bridle_fairseq.utils import distributed

ROWS_PER_CODE = 64  # more vectors than this for each code are subsampled


def init_levels(
    codebooks: EmaCodebooks, unit: Tensor, *, init: str, kmeans_iterations: int, cosine: bool, seed: int
) -> bool:
    """Initialize the levels in turn, each from the residuals of the levels before it. Collective.

    The codebooks are the same on all ranks afterwards.

    Args:
        codebooks: initialized in place.
        unit: n x D, this rank's r_0; n may be 0.
        init: "kmeans" or "uniform".
        kmeans_iterations: number of iterations for "kmeans".
        cosine: codes are searched by direction.
        seed: seed of the subsampling and of the initialization.

    Returns:
        False if no rank has a vector: then the codebooks stay uninitialized.
    """
    levels, size, dim = codebooks.codes.shape
    residual, total = distributed.gather_sample(unit, ROWS_PER_CODE * size, seed)  # s x D of total x D
    if total == 0:
        return False
    scale = total / len(residual)  # number of vectors that a sampled one stands for
    for level in range(levels):
        if init == "uniform":
            codes = _uniform_codes(size, dim, seed + level).to(residual.device)
            sizes = residual.new_full((size,), len(residual) * scale / size)
        else:
            of_book = codebooks.share_of(level, residual)
            codes, counts = kmeans(of_book, size, iterations=kmeans_iterations, cosine=cosine, seed=seed + level)
            sizes = counts * scale
        codebooks.set_level(level, codes, sizes)
        codebook = codebooks.codes[level]
        residual = residual - F.embedding(nearest_code(residual, codebook, cosine), codebook)
    for tensor in (codebooks.codes, codebooks.sizes, codebooks.sums):
        distributed.broadcast(tensor)
    codebooks.started.fill_(True)
    return True


def _uniform_codes(size: int, dim: int, seed: int) -> Tensor:
    """C x D codes, uniform in [-1 / C, 1 / C)."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(size, dim, generator=generator) * 2 - 1) / size
