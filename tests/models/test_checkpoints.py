"""Checkpoint files: models by their registered name, settings without a model, and errors in one sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from fairseq.dataclass.configs import CommonConfig
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.models import checkpoints  # noqa: E402
from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.models.bridle_classifier import BridleClassifierModel  # noqa: E402
from bridle_fairseq.nn.bridle import Bridle  # noqa: E402
from bridle_fairseq.nn.classifier import Classifier  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402
from bridle_fairseq.utils.errors import InputError  # noqa: E402

SIZES = dict(encoder_width=16, encoder_depth=1, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= {"stages": [{"kind": "encoder", "updates": 9}], "modality": "audio", "sample_rate": 8000}
CLASSES = {"ids": ["a", "b", "c"], "names": ["cat", "dog", "rain"]}


def save(path: Path, model: dict, task: dict, weights: dict, **state) -> str:
    common = OmegaConf.to_container(OmegaConf.structured(CommonConfig), enum_to_str=True)
    task = {"data": "", "modality": "audio", "sample_rate": 8000, "max_sample_size": 8000, "seed": 1, **task}
    history = {"optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 7}
    state = {"cfg": {"model": model, "task": task, "common": common}, "args": None, "model": weights, **state}
    torch.save({"extra_state": {"best": 0.75}, "optimizer_history": [history], **state}, path)
    return str(path)


@pytest.fixture
def pretrained(tmp_path) -> str:
    weights = Bridle(BridleSettings(**SIZES)).state_dict()
    return save(tmp_path / "bridle.pt", {"_name": "bridle", **SIZES}, {"_name": "bridle_pretraining"}, weights)


@pytest.fixture
def classifier(tmp_path) -> str:
    settings = BridleSettings(**SIZES)
    model = {"_name": "bridle_classifier", "pooling": "mean", "settings": dataclasses.asdict(settings)}
    (tmp_path / "labels.csv").write_text("index,mid,display_name\n0,a,cat\n1,b,dog\n2,c,rain\n")
    task = {"_name": "bridle_classification", "data": str(tmp_path)}
    weights = Classifier(settings, 3).state_dict()
    return save(tmp_path / "classifier.pt", model, task, weights, task_state={"classes": CLASSES})


def test_model_is_loaded_in_eval_mode_if_its_name_is_expected(pretrained, classifier) -> None:
    model, task = checkpoints.load_model(pretrained)
    assert isinstance(model, BridleModel) and not model.training and task.cfg.sample_rate == 8000
    model, _ = checkpoints.load_model(classifier, names=checkpoints.MODELS_WITH_ENCODER)
    assert isinstance(model, BridleClassifierModel)
    with pytest.raises(InputError, match="a checkpoint of the model 'bridle_classifier'; expected one of 'bridle'$"):
        checkpoints.load_model(classifier)
    assert isinstance(checkpoints.load_model(classifier, names=None)[0], BridleClassifierModel)


def test_overrides_change_the_configuration(classifier, tmp_path) -> None:
    (tmp_path / "moved").mkdir()
    (tmp_path / "labels.csv").rename(tmp_path / "moved" / "labels.csv")
    overrides = {"data": str(tmp_path / "moved")}
    _, task = checkpoints.load_model(classifier, names=("bridle_classifier",), overrides=overrides)
    assert task.cfg.data == str(tmp_path / "moved")


def test_file_is_read_without_building_its_model(pretrained, classifier) -> None:
    for path, name in ((pretrained, "bridle"), (classifier, "bridle_classifier")):
        checkpoint = checkpoints.read_checkpoint(path)
        assert (checkpoint.model, checkpoint.updates, checkpoint.best_score) == (name, 7, 0.75)
        assert checkpoint.settings == BridleSettings(**SIZES)
        assert "encoder.class_token" in checkpoint.weights and "model" not in checkpoint.state
        assert checkpoint.cfg["task"]["sample_rate"] == 8000


@pytest.mark.parametrize("read", [checkpoints.load_model, checkpoints.read_checkpoint, checkpoints.read_bridle])
def test_unusable_files_are_reported_in_one_sentence(tmp_path, pretrained, read) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk" * 99)
    whole = Path(pretrained).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"weight": torch.zeros(2)}, tmp_path / "tensors.pt")
    for name, sentence in (
        ("none.pt", "none.pt: no such checkpoint; expected "),
        ("junk.pt", "junk.pt: not a checkpoint that fairseq can load"),
        ("cut.pt", "cut.pt: not a checkpoint that fairseq can load"),
        ("tensors.pt", "tensors.pt: not a checkpoint that fairseq can load"),
    ):
        with pytest.raises(InputError, match=sentence) as error:
            read(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_other_models_and_missing_settings_are_reported(tmp_path, classifier) -> None:
    with pytest.raises(InputError, match="a checkpoint of the model 'bridle_classifier'; expected one of 'bridle'$"):
        checkpoints.read_bridle(classifier)
    state = torch.load(classifier, weights_only=False)
    del state["cfg"]["model"]["settings"]
    torch.save(state, classifier)
    with pytest.raises(InputError, match="of the model 'bridle_classifier'; expected one of 'bridle' or"):
        _ = checkpoints.read_checkpoint(classifier).settings


def test_names_of_outputs_must_be_in_the_file_and_fit_a_terminal(classifier) -> None:
    state = torch.load(classifier, weights_only=True)
    for outputs, sentence in (
        (None, "classifier.pt: task_state is None; expected values by name"),
        ({}, "classifier.pt: task_state.classes is missing"),
        ({"classes": {"ids": ["a"], "names": []}}, "task_state.classes.names is "),
        ({"classes": {"ids": ["a", "b", "c"], "names": ["a", "b"]}}, "classes with 3 ids and 2 names"),
        ({"classes": {"ids": ["a", "b"], "names": ["a", "\x1b]0;title\x07"]}}, r"names\[1\] is '\\x1b\]0;title\\x07'"),
    ):
        torch.save({**state, "task_state": outputs}, classifier)
        with pytest.raises(InputError, match=sentence):
            checkpoints.load_model(classifier, names=None)


def test_model_larger_than_its_weights_is_not_built(pretrained) -> None:
    state = torch.load(pretrained, weights_only=True)
    for changes in ({"encoder_width": 32768, "encoder_heads": 1}, {"encoder_depth": 1000, "tokenizer_depth": 1000}):
        torch.save({**state, "cfg": {**state["cfg"], "model": {**state["cfg"]["model"], **changes}}}, pretrained)
        with pytest.raises(InputError, match="settings of a model that is far larger than its weights"):
            checkpoints.read_bridle(pretrained)


def test_task_state_is_that_of_the_checkpoint_from_which_a_run_resumes(tmp_path, classifier) -> None:
    def restored(**checkpoint):
        cfg = OmegaConf.create({"checkpoint": checkpoint, "task": {"data": ""}})
        return checkpoints.restored(cfg.task)

    found = restored(restore_file=classifier, save_dir="saves")
    assert found[:2] == ({"classes": CLASSES}, classifier) and found.model_cfg["_name"] == "bridle_classifier"
    assert restored(restore_file="checkpoint_last.pt", save_dir=str(tmp_path)) == ({}, None, None)
    last = str(tmp_path / "checkpoint_last.pt")
    Path(classifier).rename(last)
    assert restored(restore_file="checkpoint_last.pt", save_dir=str(tmp_path))[:2] == ({"classes": CLASSES}, last)
    assert checkpoints.restored(OmegaConf.create({"data": ""})) == ({}, None, None)


def test_untrained_checkpoint_has_the_settings_and_other_weights(tmp_path, pretrained) -> None:
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = checkpoints.write_untrained(pretrained, tmp_path / f"{name}.pt", seed)
        assert checkpoints.read_bridle(path)[0] == BridleSettings(**SIZES)
        states.append(torch.load(path, weights_only=False))
    assert all(state["cfg"] == torch.load(pretrained, weights_only=False)["cfg"] for state in states)
    weights = [state["model"]["encoder.patch_embed.weight"] for state in states]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], torch.load(pretrained)["model"]["encoder.patch_embed.weight"])
