"""Model ``bridle_classifier``: it starts from a checkpoint, which it does not need afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq import models
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402
from bridle_fairseq.utils.errors import InputError  # noqa: E402

SIZES = dict(encoder_width=16, encoder_depth=2, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, num_mel_bins=40, fbank_mean=-5.0)
SIZES |= {"stages": [{"kind": "encoder", "updates": 9}], "modality": "audio", "sample_rate": 8000}


def pretrained(path: Path, name: str = "bridle", dtype: torch.dtype = torch.float32) -> BridleModel:
    torch.manual_seed(0)
    model = BridleModel(BridleSettings(**SIZES)).to(dtype)
    state = {"cfg": {"model": {"_name": name, **SIZES}}, "args": None, "model": model.state_dict()}
    state |= {"extra_state": {}, "optimizer_history": [{"optimizer_name": "", "lr_scheduler_state": {}}]}
    torch.save(state, path)
    return model.eval()


def build(checkpoint, num_classes: int = 4, sample_rate: int = 8000, **model):
    cfg = OmegaConf.create({"_name": "bridle_classifier", "checkpoint": checkpoint and str(checkpoint), **model})
    task = SimpleNamespace(cfg=SimpleNamespace(sample_rate=sample_rate), classes=range(num_classes))
    return models.build_model(cfg, task)


def test_pools_the_features_of_the_pretrained_encoder(tmp_path) -> None:
    bridle = pretrained(tmp_path / "bridle.pt")
    source = 0.1 * torch.randn(2, 5000)
    padding = torch.arange(5000) >= torch.tensor([5000, 3000])[:, None]
    features = bridle.extract_features(source, padding)
    for pooling in ("mean", "class_token"):
        model = build(tmp_path / "bridle.pt", pooling=pooling).eval()
        valid = [x[~pad].mean(0) for x, pad in zip(features["x"], features["padding_mask"], strict=True)]
        expected = torch.stack(valid) if pooling == "mean" else features["class_token"]
        torch.testing.assert_close(model.pooled(source, padding), expected)
        assert model(source, padding).shape == (2, 4)


def test_half_precision_checkpoint_is_loaded(tmp_path) -> None:
    bridle = pretrained(tmp_path / "bridle.pt", dtype=torch.bfloat16)
    encoder = build(tmp_path / "bridle.pt").encoder.state_dict()
    for name, value in bridle.encoder.state_dict().items():
        assert encoder[name].dtype == torch.float32 and torch.equal(encoder[name], value.float())


def test_saved_settings_replace_the_checkpoint(tmp_path) -> None:
    pretrained(tmp_path / "bridle.pt")
    model = build(tmp_path / "bridle.pt")
    os.remove(tmp_path / "bridle.pt")
    again = build(tmp_path / "bridle.pt", settings=OmegaConf.create(vars(model.settings)))
    assert again.settings == model.settings and again.settings.fbank_mean == -5.0
    again.load_state_dict(model.state_dict(), model_cfg=again.cfg)
    source = torch.randn(1, 3000)
    assert torch.equal(again.eval()(source), model.eval()(source))


def test_mistakes_are_errors_with_one_sentence(tmp_path) -> None:
    pretrained(tmp_path / "bridle.pt")
    pretrained(tmp_path / "other.pt", name="wav2vec2")
    (tmp_path / "junk.pt").write_bytes(b"junk" * 99)
    state = torch.load(tmp_path / "bridle.pt", weights_only=False)
    state["cfg"]["model"]["encoder_depth"] = 3
    torch.save(state, tmp_path / "unfit.pt")
    for name, options, sentence in (
        (None, {}, "model.checkpoint is not set; expected the path of a checkpoint of the model 'bridle'"),
        ("none.pt", {}, "none.pt: no such checkpoint"),
        ("junk.pt", {}, "junk.pt: not a checkpoint that fairseq can load"),
        ("other.pt", {}, "other.pt: a checkpoint of the model 'wav2vec2'; expected one of 'bridle'"),
        ("unfit.pt", {}, "unfit.pt: its weights do not fit its settings .*blocks.2"),
        ("bridle.pt", {"sample_rate": 16000}, "task.sample_rate is 16000; expected 8000, that of .*bridle.pt"),
        ("bridle.pt", {"pooling": "sum"}, "model.pooling is 'sum'"),
    ):
        with pytest.raises(InputError, match=sentence) as error:
            build(name and tmp_path / name, **options)
        assert "\n" not in str(error.value)
