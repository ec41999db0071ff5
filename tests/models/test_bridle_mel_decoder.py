"""Model ``bridle_mel_decoder``: it takes the tokenizer of a checkpoint, which it does not need afterwards."""

from __future__ import annotations

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
from bridle_fairseq.tasks.bridle_reconstruction import (  # noqa: E402
    BridleReconstructionConfig,
    BridleReconstructionTask,
)
from bridle_fairseq.tasks.stages import begin_update  # noqa: E402
from bridle_fairseq.utils.errors import InputError  # noqa: E402
from bridle_fairseq.utils.files import file_sha256  # noqa: E402

SIZES = dict(encoder_width=16, encoder_depth=2, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, num_mel_bins=40, fbank_mean=-5.0)
SIZES |= {"stages": [{"kind": "tokenizer", "updates": 9}], "modality": "audio", "sample_rate": 8000}
WAVES = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)).cumsum(1).sin() * 0.3
SMALL = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


def pretrained(path: Path, started: bool = True) -> BridleModel:
    torch.manual_seed(0)
    model = BridleModel(BridleSettings(**SIZES)).train()
    if started:
        begin_update(model, 0)
        model(WAVES)
        model.commit()
    state = {"cfg": {"model": {"_name": "bridle", **SIZES}}, "args": None, "model": model.state_dict()}
    state |= {"extra_state": {}, "optimizer_history": [{"optimizer_name": "", "lr_scheduler_state": {}}]}
    torch.save(state, path)
    return model.eval()


def build(checkpoint, sample_rate: int = 8000, **model):
    cfg = OmegaConf.create({"_name": "bridle_mel_decoder", "checkpoint": str(checkpoint), **SMALL, **model})
    return models.build_model(cfg, SimpleNamespace(cfg=SimpleNamespace(sample_rate=sample_rate)))


def test_uses_the_tokenizer_of_its_checkpoint_and_saves_its_hash(tmp_path) -> None:
    bridle = pretrained(tmp_path / "bridle.pt")
    model = build(tmp_path / "bridle.pt").eval()
    assert torch.equal(model.tokenizer.tokenize(WAVES)[0], bridle.tokenize(WAVES)[0])
    assert model.checkpoint_sha256 == file_sha256(str(tmp_path / "bridle.pt"))
    assert not hasattr(model.tokenizer, "encoder") and model.tokenizer.estimator is None


def test_saved_run_loads_without_the_checkpoint(tmp_path) -> None:
    pretrained(tmp_path / "bridle.pt")
    task = BridleReconstructionTask(BridleReconstructionConfig(data=str(tmp_path), sample_rate=8000))
    cfg = OmegaConf.create(
        {"_name": "bridle_mel_decoder", "checkpoint": str(tmp_path / "bridle.pt"), **SMALL, "settings": None}
    )
    model = task.build_model(cfg).eval()
    (tmp_path / "bridle.pt").unlink()
    again = task.build_model(cfg, from_checkpoint=True).eval()
    again.load_state_dict(model.state_dict())
    for mine, theirs in zip(again(WAVES).estimates, model(WAVES).estimates, strict=True):
        assert torch.equal(mine, theirs)
    assert again.checkpoint_sha256 == model.checkpoint_sha256 is not None
    with pytest.raises(SystemExit):  # a new run does not begin with the settings of another
        task.build_model(cfg)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"checkpoint": "none.pt"}, "none.pt: no such checkpoint"),
        ({"checkpoint": "fresh.pt"}, "fresh.pt: its codebooks have not been started"),
        ({"checkpoint": "bridle.pt", "sample_rate": 16000}, "task.sample_rate is 16000; expected 8000"),
        ({"checkpoint": "bridle.pt", "decoder_heads": 3}, "heads that divide the width"),
    ],
)
def test_mistakes(tmp_path, options, sentence) -> None:
    pretrained(tmp_path / "bridle.pt")
    pretrained(tmp_path / "fresh.pt", started=False)
    options = {**options, "checkpoint": tmp_path / options["checkpoint"]}
    with pytest.raises(InputError, match=sentence):
        build(**options)
