"""Residual vector quantization. Needs torch only, and reads no files."""

from bridle_fairseq.quantization.residual import QuantizedResult, ResidualQuantizer
from bridle_fairseq.quantization.statistics import (
    LevelStatistics,
    code_counts,
    corpus_residual_energy,
    level_statistics,
)

__all__ = [
    "LevelStatistics",
    "QuantizedResult",
    "ResidualQuantizer",
    "code_counts",
    "corpus_residual_energy",
    "level_statistics",
]
