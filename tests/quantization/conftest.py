"""Quantizers that several tests share."""

import pytest
import torch

from bridle_fairseq.quantization import ResidualQuantizer

VARIANTS = {
    "euclidean": {},
    "cosine": {"metric": "cosine"},
    "unit codes": {"metric": "cosine", "num_codebooks": 1},
    "uniform": {"init": "uniform"},
}


@pytest.fixture(params=VARIANTS)
def variant(request) -> dict:
    """Constructor options of a quantizer."""
    return VARIANTS[request.param]


@pytest.fixture
def trained(variant) -> ResidualQuantizer:
    """A quantizer with 10 codes per level and width 8, after five updates, in training mode."""
    module = ResidualQuantizer(8, **{"num_codebooks": 3, "codebook_size": 10, **variant}).train()
    for step in range(5):
        module(torch.randn(100, 8, generator=torch.Generator().manual_seed(step)) + 0.5)
        module.commit()
    return module
