"""Fine-tuning with stock fairseq: it learns, a frozen encoder does not change, mistakes end with one sentence."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq_cli.train import main as train
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental import compose, initialize_config_dir
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.data.manifests.manifest import Manifest  # noqa: E402
from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "examples" / "audio" / "config" / "finetuning"
CLASSES = ["low", "high", "noise"]
SIZES = dict(encoder_width=32, encoder_depth=1, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, fbank_mean=-8.0, fbank_std=4.0)
SIZES |= {"stages": [{"kind": "encoder", "updates": 9}], "modality": "audio", "sample_rate": 16000}


def sound(kind: str, random: np.random.Generator) -> np.ndarray:
    time = np.arange(random.integers(2000, 6000)) / 16000
    pitch_hz = {"low": random.uniform(200, 500), "high": random.uniform(2500, 6000), "noise": 0.0}[kind]
    wave = random.standard_normal(len(time)) if kind == "noise" else np.sin(2 * np.pi * pitch_hz * time)
    return 0.2 * random.uniform(0.5, 1) * wave


@pytest.fixture
def data(tmp_path) -> Path:
    """Tones and noise with their classes, 24 clips to train on and 12 to validate."""
    folder, random = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    (folder / "labels.csv").write_text(
        "index,mid,display_name\n" + "".join(f"{number},{kind},the {kind}\n" for number, kind in enumerate(CLASSES))
    )
    for split, count in (("train", 24), ("valid", 12)):
        kinds = [CLASSES[number % 3] for number in range(count)]
        sizes = []
        for number, kind in enumerate(kinds):
            wave = sound(kind, random)
            soundfile.write(folder / f"clip-{split}{number}.wav", wave, 16000)
            sizes.append(len(wave))
        Manifest("", [f"clip-{split}{number}.wav" for number in range(count)], sizes).write(folder / f"{split}.tsv")
        (folder / f"{split}.lbl").write_text("".join(f"{kind}\n" for kind in kinds))
    return folder


@pytest.fixture
def pretrained(tmp_path) -> Path:
    """A checkpoint of the model ``bridle`` as it starts, as fairseq would save it."""
    torch.manual_seed(0)
    model = BridleModel(BridleSettings(**SIZES))
    state = {"cfg": {"model": {"_name": "bridle", **SIZES}}, "args": None, "model": model.state_dict()}
    state |= {"extra_state": {}, "optimizer_history": [{"optimizer_name": "", "lr_scheduler_state": {}}]}
    torch.save(state, tmp_path / "pretrained.pt")
    return tmp_path / "pretrained.pt"


def settings(data: Path, pretrained: Path, *more: str) -> list[str]:
    run = {"task.data": data, "model.checkpoint": pretrained, "checkpoint.save_dir": data.parent / "out"}
    run |= {"common.cpu": "true", "dataset.num_workers": 0, "dataset.batch_size": 8, "dataset.validate_interval": 5}
    run |= {"optimization.max_update": 3, "lr_scheduler.warmup_updates": 2, "optimization.lr": "[0.02]"}
    return [f"{key}={value}" for key, value in run.items()] + list(more)


@functools.cache
def tiny_config():
    """The file ``tiny.yaml`` over fairseq's defaults, as fairseq-hydra-train composes it."""
    hydra_init("tiny")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONFIGS)):
        return compose("tiny")


def finetune(data: Path, pretrained: Path, *more: str) -> dict:
    """A run in this process, which is what fairseq-hydra-train does but for the start of Python; its checkpoint."""
    cfg = copy.deepcopy(tiny_config())
    OmegaConf.set_struct(cfg, False)
    cfg.merge_with_dotlist(settings(data, pretrained, *more))
    add_defaults(cfg)
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    OmegaConf.set_struct(cfg, True)
    before = os.getcwd()
    os.chdir(data.parent)  # skipped.tsv
    try:
        train(cfg)
    finally:
        os.chdir(before)
    return torch.load(data.parent / "out" / "checkpoint_last.pt", weights_only=False)


def test_stock_run_learns_and_its_checkpoint_is_self_contained(data, pretrained, tmp_path) -> None:
    command = [str(Path(sys.executable).with_name("fairseq-hydra-train")), "--config-dir", str(CONFIGS)]
    command += ["--config-name", "tiny", f"common.user_dir={ROOT / 'bridle_fairseq'}", f"hydra.run.dir={tmp_path}"]
    command += settings(data, pretrained, "optimization.max_update=45", "lr_scheduler.warmup_updates=5")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    valid = [json.loads(line) for line in re.findall(r"\[valid\]\[INFO\] - (\{.*\})", done.stdout)]
    assert float(valid[-1]["valid_accuracy"]) > 0.8, valid  # chance: 0.33

    sounds = [soundfile.read(data / f"clip-valid{row}.wav", dtype="float32")[0] for row in range(12)]
    pretrained.unlink()
    data.rename(tmp_path / "elsewhere")
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "out" / "checkpoint_last.pt")])
    model.eval()
    assert (task.classes.ids, task.classes.names) == (CLASSES, ["the low", "the high", "the noise"])
    assert model.settings == BridleSettings(**SIZES)
    guesses = [int(model(torch.from_numpy(wave)[None]).argmax()) for wave in sounds]
    correct = sum(guess == row % 3 for row, guess in enumerate(guesses))
    assert correct / 12 == pytest.approx(float(valid[-1]["valid_accuracy"]), abs=1e-4)


def test_resuming_with_other_classes_is_an_error(data, pretrained, capsys) -> None:
    """The same number of them in another order would load, and every output have another name."""
    finetune(data, pretrained)
    table = data / "labels.csv"
    header, first, second, *rest = table.read_text().splitlines()
    swapped = [first.replace("0,", "1,", 1), second.replace("1,", "0,", 1)][::-1]
    table.write_text("\n".join([header, *swapped, *rest]) + "\n")
    with pytest.raises(SystemExit) as stopped:
        finetune(data, pretrained)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert f"labels.csv, class 0: {CLASSES[1]!r}; expected {CLASSES[0]!r}, as in" in error


def test_frozen_encoder_is_bit_identical(data, pretrained) -> None:
    before = torch.load(pretrained, weights_only=False)["model"]
    after = finetune(data, pretrained, "model.freeze_encoder=true", "optimizer.weight_decay=0.5")["model"]
    encoder = [name for name in after if name.startswith("encoder.")]
    assert len(encoder) > 10 and all(torch.equal(after[name], before[name]) for name in encoder)
    assert after["head.bias"].abs().max() > 0


def test_unfrozen_encoder_learns(data, pretrained) -> None:
    before = torch.load(pretrained, weights_only=False)["model"]
    state = finetune(data, pretrained)
    same = [name for name in state["model"] if name in before and torch.equal(state["model"][name], before[name])]
    assert not [name for name in same if name.startswith("encoder.")]
    assert state["cfg"]["model"]["settings"]["fbank_mean"] == -8.0


def test_multi_label_classification(data, pretrained) -> None:
    rows = ["low,high", "", "noise"] * 8
    (data / "train.lbl").write_text("\n".join(rows) + "\n")
    state = finetune(data, pretrained, "task.multi_label=true", "checkpoint.best_checkpoint_metric=mAP")
    assert "precision_at_1" in json.dumps(list(state["extra_state"]["metrics"]["valid"]), default=str)

    with pytest.raises(SystemExit):
        finetune(data, pretrained)


def fails(capsys, sentence: str, *arguments) -> None:
    with pytest.raises(SystemExit) as stop:
        finetune(*arguments)
    assert stop.value.code == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_mistakes_end_with_one_sentence_before_training(data, pretrained, capsys) -> None:
    labels, lines = data / "train.lbl", (data / "train.lbl").read_text().splitlines()
    labels.write_text("\n".join(lines[:-1]) + "\n")
    fails(capsys, r"train.lbl: 23 lines; expected 24, one for each row of .*train.tsv", data, pretrained)
    labels.write_text("\n".join(["loud", *lines[1:]]) + "\n")
    fails(capsys, r"train.lbl, line 1: unknown class 'loud'; expected one of the 3 ids", data, pretrained)
    labels.write_text("\n".join([lines[0], "low,high", *lines[2:]]) + "\n")
    fails(capsys, r"train.lbl, line 2: 2 classes; expected exactly 1, unless task.multi_label", data, pretrained)
    labels.unlink()
    fails(capsys, r"train.lbl: cannot read these labels", data, pretrained)
    fails(capsys, r"model.settings is set; expected null", data, pretrained, "model.settings.encoder_width=8")
    fails(capsys, r"model.checkpoint is not set", data, pretrained, "model.checkpoint=null")
    fails(capsys, r"bridle_fairseq: error: .*none.pt: no such checkpoint", data, data / "none.pt")
    (data / "labels.csv").unlink()
    fails(capsys, r"labels.csv: cannot read this csv file", data, pretrained)
    assert not (data.parent / "out" / "checkpoint_last.pt").exists()


def test_labels_with_other_classes_are_errors(data, pretrained, capsys) -> None:
    finetune(data, pretrained)
    _, _, task = checkpoint_utils.load_model_ensemble_and_task([str(data.parent / "out" / "checkpoint_last.pt")])
    task.load_dataset("valid")
    assert task.datasets["valid"].collater([task.datasets["valid"][row] for row in (4, 2)])["target"].tolist() == [1, 2]
    (data / "labels.csv").write_text("index,mid,display_name\n0,low,a\n1,noise,b\n2,high,c\n")
    with pytest.raises(SystemExit) as stop:
        task.load_dataset("valid")
    assert stop.value.code == 2
    assert "labels.csv: 3 classes that are not the 3 of the checkpoint" in capsys.readouterr().err


def test_too_many_skipped_clips_end_the_run(data, pretrained, capsys) -> None:
    for row in range(12):
        path = data / f"clip-train{row}.wav"
        path.write_bytes(path.read_bytes()[:200])
    fails(capsys, r"\d+ of 24 clips had to be skipped", data, pretrained)


SETTINGS = {
    "checkpoint.best_checkpoint_metric=precision": "is 'precision'; expected one of loss, accuracy, top5_accuracy, mAP",
    "task.multi_label=true": "metric is 'accuracy'; expected one of loss, mAP, mAUC, d_prime, precision_at_1",
    "checkpoint.maximize_best_checkpoint_metric=false": "is false with accuracy; expected true",
    "dataset.max_valid_steps=3": "dataset.max_valid_steps is 3; expected null",
    "task.samples_per_epoch=9": "task.samples_per_epoch is 9 with task.weighted_sampling false; expected null",
    "task.weighted_sampling=true task.samples_per_epoch=0": "is 0 with task.weighted_sampling true; expected",
    "optimization.max_update=60 lr_scheduler.warmup_updates=60": "are both 60; expected more updates",
    "dataset.batch_size=1 criterion.mixup=0.5": "mixup needs another clip .* expected dataset.batch_size above 1",
    "criterion.mixup=1.5": "criterion.mixup is 1.5; expected 0 to 1",
    "model.drop_path=1": "model.drop_path is 1.0; expected 0 or more and below 1",
    "model.fbank_std=0": "model.fbank_std is 0.0; expected more than 0",
}


@pytest.mark.parametrize("override", SETTINGS)
def test_impossible_settings_are_errors(data, pretrained, capsys, override) -> None:
    fails(capsys, SETTINGS[override], data, pretrained, *override.split())


def test_weighted_sampling_sets_the_size_of_epochs(data, pretrained) -> None:
    more = ["task.weighted_sampling=true", "task.samples_per_epoch=40", "optimization.max_update=7"]
    state = finetune(data, pretrained, *more)
    assert state["extra_state"]["train_iterator"] == {
        "version": 2,
        "epoch": 2,
        "iterations_in_epoch": 2,
        "shuffle": True,
    }


def test_log_mel_normalization_can_differ_from_pretraining(data, pretrained) -> None:
    state = finetune(data, pretrained, "model.fbank_mean=-3.5", "model.fbank_std=2.0")
    settings = state["cfg"]["model"]["settings"]
    assert (settings["fbank_mean"], settings["fbank_std"]) == (-3.5, 2.0)
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(data.parent / "out" / "checkpoint_last.pt")])
    assert (model.front_end.mean, model.front_end.std) == (-3.5, 2.0)


def test_bfloat16_keeps_layer_rates_and_mixup(data, pretrained) -> None:
    """fairseq then steps float32 copies of the parameters, and casts batches."""
    more = ["common.bf16=true", "model.layer_decay=0.5", "criterion.mixup=1.0", "model.drop_path=0.1"]
    more += ["model.mask_time=0.2", "model.spec_augment_frames=20", "lr_scheduler.max_update=9"]
    state = finetune(data, pretrained, *more)
    groups = state["last_optimizer_state"]["param_groups"]
    assert sorted({group["lr_scale"] for group in groups}) == [0.25, 0.5, 1.0]
    top = max(group["lr"] for group in groups)
    assert top > 0 and all(group["lr"] == pytest.approx(top * group["lr_scale"]) for group in groups)
    assert all(torch.isfinite(value).all() for value in state["model"].values())
