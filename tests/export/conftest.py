"""Checkpoints of small models, and their exports."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import bridle_fairseq
from bridle_fairseq.cli import main as bridle
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.nn.classifier import Classifier
from bridle_fairseq.nn.settings import BridleSettings

SIZES = dict(encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, num_codebooks=3, fbank_mean=-5.0)
SIZES |= {"stages": [{"kind": "tokenizer", "updates": 4}], "num_mel_bins": 64, "patch_size": [8, 16]}
NAMES = ["dog", "rain, heavy", "sea"]


def write_state(path: Path, model: dict, task: dict, weights: dict, **more) -> None:
    from fairseq.dataclass.configs import CommonConfig
    from omegaconf import OmegaConf

    common = OmegaConf.to_container(OmegaConf.structured(CommonConfig), enum_to_str=True)
    history = [{"optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 3}]
    meters = {"valid": [(10, "loss", "AverageMeter", {"val": 1.0, "sum": 25.0, "count": 10, "round": 4})]}
    extra = {"metrics": meters, "previous_training_time": 7200.0}
    state = {
        "cfg": {"model": model, "task": task, "common": common, "dataset": {"train_subset": "train"}},
        "args": None,
    }
    torch.save({**state, "extra_state": extra, "optimizer_history": history, "model": weights, **more}, path)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Folder with a checkpoint of each model, and the models: (folder, bridle, classifier)."""
    bridle_fairseq.register()
    from bridle_fairseq.models.bridle import BridleModel
    from bridle_fairseq.tasks.stages import begin_update

    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    model = BridleModel(BridleSettings(**SIZES)).train()
    begin_update(model, 0)
    model(torch.randn(4, 16000).cumsum(1).sin() * 0.3)
    model.commit()
    soundfile.write(folder / "a.wav", np.zeros(800), 16000)
    Manifest(str(folder), ["a.wav"], [800]).write(folder / "train.tsv")
    task = {
        "_name": "bridle_pretraining",
        "data": str(folder),
        "sample_rate": 16000,
        "max_sample_size": 8000,
        "seed": 1,
    }
    settings = dataclasses.asdict(model.settings)
    write_state(folder / "bridle.pt", {"_name": "bridle", **settings}, task, model.state_dict())
    half = {name: value.half() if name.startswith("encoder.") else value for name, value in model.state_dict().items()}
    write_state(folder / "half.pt", {"_name": "bridle", **settings, "precision": "bfloat16"}, task, half)
    classifier = Classifier(model.settings, 3, "frequency").eval()
    config = {"_name": "bridle_classifier", "settings": settings, "pooling": "frequency"}
    classes = {"classes": {"ids": ["/m/1", "/m/2", "/m/3"], "names": NAMES}}
    task |= {"_name": "bridle_classification", "multi_label": False}
    write_state(folder / "classifier.pt", config, task, classifier.state_dict(), task_state=classes)
    return folder, model.eval(), classifier


@pytest.fixture(scope="session")
def exported(made):
    """Folders of exports by name; none may be changed."""
    folder = made[0]
    for name, options in (("all", []), ("encoder", ["--part", "encoder"]), ("tokenizer", ["--part", "tokenizer"])):
        assert bridle.main(["export", str(folder / "bridle.pt"), str(folder / name), *options]) == 0
    assert bridle.main(["export", str(folder / "half.pt"), str(folder / "half")]) == 0
    assert bridle.main(["export", str(folder / "classifier.pt"), str(folder / "classifier")]) == 0
    return folder


@pytest.fixture(scope="session")
def sound():
    """A batch of two clips, the second one shorter: B x S, lengths, padding mask."""
    source = torch.randn(2, 9000, generator=torch.Generator().manual_seed(1)).cumsum(1).sin() * 0.3
    return source, [9000, 5000], torch.arange(9000) >= torch.tensor([9000, 5000])[:, None]
