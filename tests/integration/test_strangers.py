"""Every command that takes a checkpoint, given one of a stranger: nothing runs, nothing of the environment leaks."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch

import bridle_fairseq
from bridle_fairseq.cli.main import main

SECRET = "hunter2secret"
SIZES = dict(encoder_width=32, encoder_depth=1, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, num_codebooks=2, codebook_size=12, codebook_dim=8, num_mel_bins=64, patch_size=[8, 16])
CLASSES = {"ids": ["a", "b"], "names": ["cat", "dog"]}
EVAL = "__import__('os').system('touch PWNED') or [(512, 10, 5)]"


def state_of(name: str, folder: str) -> dict:
    """A checkpoint of a model with random weights, as training saves it."""
    bridle_fairseq.register()
    from bridle_fairseq.models.checkpoint_config import TASKS
    from bridle_fairseq.nn.bridle import Bridle
    from bridle_fairseq.nn.classifier import Classifier
    from bridle_fairseq.nn.ctc import Transcriber
    from bridle_fairseq.nn.settings import BridleSettings

    settings = BridleSettings(**SIZES)
    fixed = dataclasses.asdict(settings)
    task = {"_name": TASKS[name], "data": folder, "sample_rate": 16000, "max_sample_size": 8000}
    model, criterion, outputs = {"_name": name, "settings": fixed}, TASKS[name], {}
    if name == "bridle":
        module, model, criterion = Bridle(settings), {"_name": name, **fixed}, "bridle"
        module.quantizer.codebooks.started.fill_(True)
    elif name == "bridle_classifier":
        module, outputs = Classifier(settings, 2), {"classes": CLASSES}
        model["pooling"] = "mean"
    else:
        module, outputs = Transcriber(settings, 6), {"symbols": ["<s>", "<pad>", "</s>", "<unk>", "a", "|"]}
        model |= {"pooling": "frequency", "upsample": 4}
        task["labels"] = "ltr"
    return {
        "args": None,
        "cfg": {"common": {"user_dir": None}, "model": model, "task": task, "criterion": {"_name": criterion}},
        "model": module.state_dict(),
        "task_state": outputs,
        "extra_state": {"best": 0.5},
        "optimizer_history": [{"num_updates": 3, "optimizer_name": "", "lr_scheduler_state": {}}],
    }


@pytest.fixture(scope="module")
def place(data, tmp_path_factory):
    """A folder with labelled data, features of them, and a checkpoint of each model."""
    folder = tmp_path_factory.mktemp("strangers")
    for split, source in (("train", "train"), ("valid", "valid"), ("test", "valid")):
        shutil.copy(data / f"{source}.tsv", folder / f"{split}.tsv")
        rows = len((folder / f"{split}.tsv").read_text().splitlines()) - 1
        (folder / f"{split}.lbl").write_text("".join("ab"[row % 2] + "\n" for row in range(rows)))
    (folder / "labels.csv").write_text("index,mid,display_name\n0,a,cat\n1,b,dog\n")
    names = sorted(path.name for path in (data / "clips").iterdir() if path.name.startswith("train"))
    rows = [f"{name},{number % 3},{'ab'[number // 3 % 2]}\n" for number, name in enumerate(names)]
    (folder / "table.csv").write_text("filename,fold,category\n" + "".join(rows))
    torch.manual_seed(0)
    for name in ("bridle", "bridle_classifier", "bridle_ctc"):
        torch.save(state_of(name, str(folder)), folder / f"{name}.pt")
    assert main(["features", str(folder / "bridle.pt"), str(folder / "valid.tsv"), "--out", str(folder / "index")]) == 0
    return folder


def commands(place: Path, clips: Path, checkpoint: Path, out: Path) -> dict[str, list[str]]:
    """Command lines that load a checkpoint, by name."""
    run = out.with_name("run")
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    os.symlink(checkpoint, run / "checkpoint_last.pt")
    record = '{"loss": "1.5", "num_updates": "3", "wall": "1"}'
    (run / "hydra_train.log").write_text(f"[2025-01-01 10:00:00,000][train_inner][INFO] - {record}\n")
    to, tsv, clip = ["--out", str(out)], str(place / "valid.tsv"), str(clips / "valid 0.wav")
    crossval = ["crossval", str(place / "table.csv"), str(clips), "--checkpoint", str(checkpoint), *to]
    return {
        "tokenize": ["tokenize", str(checkpoint), tsv, *to],
        "features": ["features", str(checkpoint), tsv, *to],
        "probe": ["probe", str(checkpoint), str(place), *to],
        "predict": ["predict", str(checkpoint), clip],
        "evaluate": ["evaluate", str(checkpoint), tsv, *to],
        "export": ["export", str(checkpoint), str(out)],
        "report": ["report", str(run)],
        "similar": ["similar", str(place / "index"), clip, "--checkpoint", str(checkpoint)],
        "crossval": crossval,
        "crossval finetune": [*crossval, "--mode", "finetune"],
        "crossval untrained": [*crossval, "--mode", "finetune", "--untrained"],
    }


def changed(**groups) -> object:
    """A change of a state: new values in groups of its configuration."""

    def change(state: dict) -> None:
        for group, values in groups.items():
            where = state["cfg"].setdefault(group, {})
            if group == "model" and "settings" in where and "_name" not in values:
                where = where["settings"]
            where.update(values)

    return change


def in_args(state: dict) -> None:
    state["args"], state["cfg"] = argparse.Namespace(arch="wav2vec2", task="audio_pretraining"), None


def check_error(name: str, printed: str) -> None:
    """One sentence, the last that a command prints; crossval says before which files have no label."""
    lines = [line for line in printed.splitlines() if not line.startswith("skipped ")]
    assert len(lines) == 1 and lines[0].startswith("bridle: error: "), (name, printed)


HOSTILE = {
    "another model": changed(model={"_name": "wav2vec2", "conv_feature_layers": EVAL}),
    "another model and task": changed(
        model={"_name": "wav2vec2", "conv_feature_layers": EVAL}, task={"_name": "audio_pretraining"}
    ),
    "another task": changed(task={"_name": "audio_pretraining"}),
    "another criterion": changed(criterion={"_name": "wav2vec"}),
    "a list of names": changed(model={"_name": ["bridle", "wav2vec2"]}),
    "names by name": changed(model={"_name": {"bridle": EVAL}}),
    "old arguments": in_args,
    "secret in a setting": changed(task={"seed": "${env:STRANGERS_SECRET}"}),
    "secret in a path": changed(task={"data": "${env:STRANGERS_SECRET}"}),
    "secret in a name": changed(task={"${env:STRANGERS_SECRET}": 1}),
    "secret elsewhere": changed(checkpoint={"best_checkpoint_metric": "${env:STRANGERS_SECRET}"}),
    "class in stages": changed(model={"stages": [{"_target_": "os.system", "kind": "encoder", "updates": 9}]}),
    "deep": changed(model={"encoder_depth": 1_000_000_000}),
    "large": changed(model={"encoder_width": 32768, "encoder_depth": 60, "encoder_heads": 1}),
    "fast": changed(task={"sample_rate": 1_000_000_000}),
    "text for a number": changed(model={"encoder_width": "32"}),
    "no settings": changed(model={"modality": None}),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_checkpoint_is_refused_in_one_sentence(place, data, tmp_path, monkeypatch, capsys, hostile) -> None:
    monkeypatch.setenv("STRANGERS_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    for model in ("bridle", "bridle_classifier", "bridle_ctc"):
        state = torch.load(place / f"{model}.pt", weights_only=True)
        HOSTILE[hostile](state)
        torch.save(state, tmp_path / "evil.pt")
        for name, argv in commands(place, data / "clips", tmp_path / "evil.pt", tmp_path / "out").items():
            if model != "bridle" and name not in ("predict", "evaluate", "export"):
                continue  # as with the model bridle
            code = main(argv)
            printed = capsys.readouterr()
            assert code == 2, (model, name)
            check_error(name, printed.err)
            assert SECRET not in printed.out + printed.err
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in found if "PWNED" in path.name or SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "text", "missing"])
def test_what_is_no_file_is_not_opened(place, data, tmp_path, capsys, kind) -> None:
    evil = tmp_path / "evil.pt"
    make = {
        "folder": evil.mkdir,
        "pipe": lambda: os.mkfifo(evil),
        "device": lambda: evil.symlink_to("/dev/zero"),
        "text": lambda: evil.write_text("weights"),
        "missing": lambda: None,
    }
    make[kind]()
    for name, argv in commands(place, data / "clips", evil, tmp_path / "out").items():
        assert main(argv) == 2, name
        check_error(name, capsys.readouterr().err)


@pytest.mark.parametrize("model", ["bridle", "bridle_classifier", "bridle_ctc"])
def test_names_of_folders_in_a_checkpoint_are_not_followed(place, data, tmp_path, monkeypatch, capsys, model) -> None:
    """A module in ``user_dir`` is not imported, and no folder or file of the configuration is opened."""
    beside = tmp_path / "beside"
    (beside / "tasks").mkdir(parents=True)
    (beside / "__init__.py").write_text(f"open({str(tmp_path / 'PWNED')!r}, 'w').close()")
    state = torch.load(place / f"{model}.pt", weights_only=True)
    changed(
        common={"user_dir": str(beside)},
        task={"data": str(beside), "codes": str(beside), "knn_data": str(beside), "results": str(beside)},
        tokenizer={"_name": "moses"},
        bpe={"_name": "sentencepiece", "sentencepiece_model": str(beside / "pipe")},
    )(state)
    state["cfg"]["model"]["checkpoint"] = str(beside / "pipe")
    for name in ("pipe", "train.tsv", "valid.tsv", "labels.csv", "dict.ltr.txt"):
        os.mkfifo(beside / name)  # would block for ever
    torch.save(state, tmp_path / "evil.pt")
    works = {
        "bridle": ["tokenize", "features", "probe", "export", "report"],
        "bridle_classifier": ["features", "predict", "evaluate", "export", "report"],
        "bridle_ctc": ["features", "predict", "export", "report"],
    }
    lines = commands(place, data / "clips", tmp_path / "evil.pt", tmp_path / "out")
    for name in works[model]:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert main(lines[name]) == 0, (name, capsys.readouterr().err)
    assert not (tmp_path / "PWNED").exists()


def test_fairseqs_own_commands_do_not_evaluate_settings(fairseq, place, tmp_path) -> None:
    state = torch.load(place / "bridle.pt", weights_only=True)
    HOSTILE["another model and task"](state)
    state["cfg"]["task"]["data"] = str(place)
    torch.save(state, tmp_path / "evil.pt")
    printed = fairseq.run(
        tmp_path,
        *("fairseq-validate", place, "--user-dir", bridle_fairseq.__path__[0], "--task", "bridle_pretraining"),
        *("--path", tmp_path / "evil.pt", "--valid-subset", "valid", "--batch-size", "4", "--cpu"),
        code=1,
    )
    assert "cannot be evaluated; expected numbers and lists" in printed
    assert not list(tmp_path.rglob("PWNED*"))


@pytest.mark.parametrize(
    "hostile, config", [("another model", "audio/config/finetuning/tiny"), ("large", "units/config/mel_decoder")]
)
def test_training_from_a_hostile_checkpoint_is_refused(fairseq, place, tmp_path, hostile, config) -> None:
    state = torch.load(place / "bridle.pt", weights_only=True)
    HOSTILE[hostile](state)
    torch.save(state, tmp_path / "evil.pt")
    configs = Path(__file__).parents[2] / "examples" / os.path.dirname(config)
    printed = fairseq.run(
        tmp_path / "run",
        *("fairseq-hydra-train", "--config-dir", configs, "--config-name", os.path.basename(config)),
        *(f"common.user_dir={bridle_fairseq.__path__[0]}", "common.cpu=true", f"task.data={place}", "hydra.run.dir=."),
        *(f"model.checkpoint={tmp_path / 'evil.pt'}", "optimization.max_update=1"),
        code=2,
    )
    assert printed.splitlines()[-1].startswith("bridle_fairseq: error: ") and "Traceback" not in printed
    assert not list(tmp_path.rglob("PWNED*"))
