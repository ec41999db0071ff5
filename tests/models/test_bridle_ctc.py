"""Model ``bridle_ctc``: it starts from a checkpoint, which it does not need afterwards."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
from fairseq import models
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.models.bridle_ctc import BridleCtcConfig  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402
from bridle_fairseq.utils.errors import InputError  # noqa: E402

SIZES = dict(encoder_width=16, encoder_depth=2, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, fbank_mean=-5.0)
SIZES |= {"stages": [{"kind": "encoder", "updates": 9}], "modality": "audio", "sample_rate": 8000}


def pretrained(path, **changes) -> BridleModel:
    torch.manual_seed(0)
    sizes = {**SIZES, **changes}
    model = BridleModel(BridleSettings(**sizes))
    state = {"cfg": {"model": {"_name": "bridle", **sizes}}, "args": None, "model": model.state_dict()}
    state |= {"extra_state": {}, "optimizer_history": [{"optimizer_name": "", "lr_scheduler_state": {}}]}
    torch.save(state, path)
    return model.eval()


def build(checkpoint, sample_rate: int = 8000, **model):
    cfg = OmegaConf.merge(OmegaConf.structured(BridleCtcConfig(checkpoint=str(checkpoint))), model)
    cfg._name = "bridle_ctc"
    return models.build_model(cfg, SimpleNamespace(cfg=SimpleNamespace(sample_rate=sample_rate), vocabulary=range(9)))


def test_uses_the_pretrained_encoder(tmp_path) -> None:
    bridle = pretrained(tmp_path / "bridle.pt")
    model = build(tmp_path / "bridle.pt", pooling="mean", upsample=1).eval()
    source = 0.1 * torch.randn(2, 5000)
    features = bridle.extract_features(source)["x"]  # B x T * F x D
    steps = features.unflatten(1, (-1, model.front_end.rows)).mean(2)
    emissions = model(source)
    torch.testing.assert_close(emissions.logits, model.frame_head(model.norm(steps)))
    assert model.num_symbols == 9 and emissions.lengths.tolist() == [steps.shape[1]] * 2


def test_saved_settings_replace_the_checkpoint(tmp_path) -> None:
    pretrained(tmp_path / "bridle.pt")
    model = build(tmp_path / "bridle.pt", fbank_mean=-4.0)
    os.remove(tmp_path / "bridle.pt")
    again = build(tmp_path / "bridle.pt", settings=OmegaConf.create(vars(model.settings)))
    assert again.settings == model.settings and again.settings.fbank_mean == -4.0
    again.load_state_dict(model.state_dict())
    source = torch.randn(1, 3000)
    assert torch.equal(again.eval()(source).logits, model.eval()(source).logits)


def test_mistakes_are_errors_with_one_sentence(tmp_path) -> None:
    pretrained(tmp_path / "bridle.pt")
    pretrained(tmp_path / "image.pt", modality="image", patch_size=[8, 8])
    for name, options, sentence in (
        ("none.pt", {}, "none.pt: no such checkpoint"),
        ("image.pt", {}, "image.pt: a model of modality image; expected audio, the task's"),
        ("bridle.pt", {"sample_rate": 16000}, "task.sample_rate is 16000; expected 8000, that of .*bridle.pt"),
        ("bridle.pt", {"layer_decay": 2.0}, "model.layer_decay is 2.0"),
    ):
        with pytest.raises(InputError, match=sentence):
            build(tmp_path / name, **options)
