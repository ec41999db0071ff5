"""The encoder as one module: torch.compile and torch.export give the same results."""

from __future__ import annotations

import pytest
import torch

from bridle_fairseq.export.graph import EncoderCore, export_graph
from bridle_fairseq.nn import position
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.settings import BridleSettings

SIZES = dict(encoder_width=16, encoder_depth=2, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16)


@pytest.fixture(scope="module")
def model() -> Bridle:
    torch.manual_seed(0)
    return Bridle(BridleSettings(**SIZES)).eval().requires_grad_(False)


def batch(clips: int, samples: int = 8000) -> tuple[torch.Tensor, torch.Tensor]:
    waveform = torch.rand(clips, samples, generator=torch.Generator().manual_seed(clips)).cumsum(1).sin()
    lengths = samples - samples * torch.arange(clips) // 3
    return waveform, torch.arange(samples) >= lengths[:, None]


def test_core_equals_the_encoder_of_the_model(model) -> None:
    found = EncoderCore(model.front_end, model.encoder)(*batch(2))
    expected = model.extract_features(*batch(2))
    for value, name in zip(found, ("x", "class_token", "padding_mask"), strict=True):
        assert torch.equal(value, expected[name])


def test_exported_graph_has_dynamic_batch_and_length(model) -> None:
    core = EncoderCore(model.front_end, model.encoder).eval()
    position._cached_table.cache_clear()  # tracing must not leave its tensors in the cache
    graph = export_graph(core).module()
    # a sample, a frame's and a patch's edges, fewer tokens than attention has another way for, and more
    for number, samples in ((1, 1), (1, 400), (3, 8000), (2, 2799), (2, 2800), (2, 2801), (1, 80123)):
        source = batch(number, samples)
        expected, found = core(*source), graph(*source)
        valid = ~expected[2]
        torch.testing.assert_close(found[0][valid], expected[0][valid], rtol=0, atol=1e-5)
        torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-5)
        assert torch.equal(found[2], expected[2])


@pytest.mark.filterwarnings("ignore")
def test_compiled_core_equals_eager(model) -> None:
    core = EncoderCore(model.front_end, model.encoder).eval()
    waveform, _ = batch(2)
    compiled = torch.compile(core, backend="eager")
    for found, expected in zip(compiled(waveform)[:2], core(waveform)[:2], strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
