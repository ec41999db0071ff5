"""A small model, batches for it, and its updates."""

import pytest
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.settings import BridleSettings

TINY = {
    "num_mel_bins": 32,
    "patch_size": [8, 8],
    "encoder_width": 32,
    "encoder_depth": 2,
    "encoder_heads": 4,
    "decoder_width": 16,
    "decoder_depth": 2,
    "decoder_heads": 2,
    "tokenizer_depth": 2,
    "estimator_depth": 1,
    "num_codebooks": 2,
    "codebook_size": 8,
    "codebook_dim": 8,
    "mask_ratio": 0.5,
}


@pytest.fixture
def make():
    """``make(**changes)``: a model in training mode, always of the same random weights."""

    def build(**changes):
        torch.manual_seed(0)
        return Bridle(BridleSettings(**{**TINY, **changes})).train()

    return build


@pytest.fixture
def clips():
    """``clips(length, ...)``: noise with a tone in it, padded to a batch, and the padding (None without)."""

    def noise(*lengths):
        source = torch.zeros(len(lengths), max(lengths))
        padding = torch.ones(source.shape, dtype=torch.bool)
        for i, length in enumerate(lengths):
            time = torch.arange(length) / 16000
            source[i, :length] = 0.1 * torch.randn(length) + torch.sin(2 * torch.pi * (200 + 300 * i) * time)
            padding[i, :length] = False
        return source, padding if padding.any() else None

    return noise


@pytest.fixture
def step():
    """``step(model, stage, batch, number=0, optimizer=None)``: an update, and the output."""

    def update(model, stage, batch, number=0, optimizer=None):
        out = model(*batch, stage, number)
        (out.loss / max(out.sample_size, 1)).backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        model.commit()
        return out

    return update
