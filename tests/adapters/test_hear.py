"""The functions of HEAR's common API, checked as hear-validator does."""

from __future__ import annotations

import pytest
import torch

from bridle_fairseq import pretrained
from bridle_fairseq.adapters import hear


@pytest.mark.parametrize("options", [{}, {"pooling": "frequency_statistics", "rows": "mean", "layer": 1}])
def test_the_functions_fit_together(exported, options) -> None:
    model = hear.load_model(str(exported / "encoder"), **options)
    assert isinstance(model, torch.nn.Module) and model.sample_rate == 16000
    audio = torch.rand(3, 2 * 16000) * 2 - 1
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    assert embeddings.dtype == torch.float32 and embeddings.shape == (3, 25, model.timestamp_embedding_size)
    assert timestamps.shape == (3, 25) and bool((timestamps.diff() - 80).abs().max() < 1e-3)
    scenes, own = hear.get_scene_embeddings(audio, model), pretrained.load(exported / "encoder")
    assert scenes.shape == (3, model.scene_embedding_size) and scenes.dtype == torch.float32
    pooling, layer = options.get("pooling", "mean"), options.get("layer")
    assert torch.equal(scenes, own.embed(audio, 16000, layer=layer, pooling=pooling))


def test_without_a_path_it_is_a_model_of_the_package() -> None:
    assert hear.load_model().scene_embedding_size == 192
