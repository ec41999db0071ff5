"""The encoder as one module: torch.compile and torch.export give the same results."""

from __future__ import annotations

import pytest
import torch

from bridle_fairseq import pretrained
from bridle_fairseq.cli import main as bridle
from bridle_fairseq.exported.graph import EncoderCore, export_graph
from bridle_fairseq.nn import position
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

SIZES = dict(encoder_width=16, encoder_depth=2, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16)


@pytest.fixture(scope="module")
def model() -> Bridle:
    """With a setting of the targets, which must leave no trace in the encoder's graph."""
    torch.manual_seed(0)
    return Bridle(BridleSettings(**SIZES, target_norm="band")).eval().requires_grad_(False)


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


def test_onnx_graph_gives_the_same_features(made, tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    assert bridle.main(["export", str(made[0] / "bridle.pt"), str(out), "--part", "encoder", "--onnx"]) == 0
    session = onnxruntime.InferenceSession(str(out / "encoder.onnx"), providers=["CPUExecutionProvider"])
    model = pretrained.load(out)
    for clips, samples in ((1, 200), (3, 8000), (2, 70001)):
        source = torch.randn(clips, samples, generator=torch.Generator().manual_seed(3)).cumsum(1).sin() * 0.3
        lengths = [samples, samples // 2, samples // 3][:clips]
        mask = torch.arange(samples) >= torch.tensor(lengths)[:, None]
        found = session.run(None, {"waveform": source.numpy(), "padding_mask": mask.numpy()})
        features, token, padding = map(torch.from_numpy, found)
        expected = model.features(source, 16000, lengths)
        valid = ~padding
        assert torch.equal(padding, torch.zeros_like(padding) if clips == 1 else expected.padding_mask)
        torch.testing.assert_close(features[valid], expected.x[valid], rtol=0, atol=1e-5)
        torch.testing.assert_close(token, expected.class_token, rtol=0, atol=1e-5)
    assert "encoder.onnx" in (out / "README.md").read_text()


def test_torch_export_graph_of_a_loaded_model(made, exported, sound, tmp_path) -> None:
    loaded = pretrained.load(exported / "classifier")  # an encoder stands in it too
    torch.export.save(loaded.program(), tmp_path / "graph.pt2")
    found = torch.export.load(tmp_path / "graph.pt2").module()(sound[0], sound[2])
    expected = loaded.features(sound[0], 16000, sound[1])
    torch.testing.assert_close(found[0][~found[2]], expected.x[~expected.padding_mask], rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="holds tokenizer; expected one with encoder"):
        pretrained.load(exported / "tokenizer").program()
