"""Cross-validation by fine-tuning: each fold is trained with stock fairseq-hydra-train and tested on held-out clips."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch

OVERRIDES = ["optimization.max_update=6", "lr_scheduler.warmup_updates=1", "dataset.batch_size=4", "task.roll=false"]
OVERRIDES += ["dataset.num_workers=0", "task.max_sample_size=8000", "optimization.lr=[0.01]"]


@pytest.fixture(scope="module")
def checkpoint(fairseq, stages, tmp_path_factory):
    run = fairseq.train(tmp_path_factory.mktemp("pretrained"), "optimization.max_update=2", stages=stages)
    return run.path()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two folds of eight clips with two classes: tone and noise. Three labels of fold 2 are wrong."""
    folder, rng, rows = tmp_path_factory.mktemp("clips"), np.random.default_rng(0), []
    for number in range(16):
        fold, kind = number // 8 + 1, number % 2
        wave = 0.3 * np.sin(0.3 * np.arange(4800)) if kind else 0.1 * rng.standard_normal(4800)
        soundfile.write(folder / f"{number}.wav", wave, 16000)
        rows.append([f"{number}.wav", fold, ("noise", "tone")[kind ^ (number in (9, 12, 14))]])
    with (folder / "folds.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["filename", "fold", "category"], *rows])
    return folder


def command(clips, checkpoint, out, *arguments, overrides=()):
    options = ["--out", out, "--mode", "finetune", "--checkpoint", checkpoint, "--valid-percent", "0.25"]
    options += ["--device", "cpu", *arguments]
    return ["bridle", "crossval", clips / "folds.csv", clips, *options, "--", *OVERRIDES, *overrides]


def test_folds_are_trained_and_tested_and_a_second_run_resumes(fairseq, programs, clips, checkpoint, tmp_path):
    out = tmp_path / "out"
    log = fairseq.run(tmp_path, *command(clips, checkpoint, out), programs=programs)
    results = json.loads((out / "crossval.json").read_text())
    (row,) = results["rows"]
    assert (row["name"], results["folds"]) == ("fine-tuned", ["1", "2"])
    assert f"{row['mean']:.3f}" in log
    assert row["folds"] == [reference_accuracy(out / f"fold{fold}") for fold in (1, 2)]
    assert results["settings"]["overrides"] == OVERRIDES
    (fold2,) = json.loads((out / "fold2/result.json").read_text())["rows"]
    assert fold2["test"] == row["folds"][1] < fold2["valid"]  # which is measured on clips of fold 1
    (out / "fold2/result.json").unlink()
    for fold, test in zip((1, 2), results["rows"][0]["folds"], strict=True):
        scores = np.load(out / f"fold{fold}" / "result.scores.npy")
        truth = [line.strip() for line in (out / f"fold{fold}" / "test.lbl").open()]
        ids = [line.split(",")[1] for line in (out / "labels.csv").read_text().splitlines()[1:]]
        assert np.mean([ids[best] == label for best, label in zip(scores[0].argmax(1), truth, strict=True)]) == test
    (out / "crossval.json").unlink()
    log_size = (out / "fold1/train.log").stat().st_size
    again = fairseq.run(tmp_path / "again", *command(clips, checkpoint, out), programs=programs)
    assert "fold2: fine-tuning" in again and "fold1: fine-tuning" not in again
    assert (out / "fold1/train.log").stat().st_size == log_size
    assert "Loaded checkpoint" in (out / "fold2/train.log").read_text()
    assert json.loads((out / "crossval.json").read_text()) == results


def test_multi_label_clips_are_scored_by_map(fairseq, programs, clips, checkpoint, tmp_path):
    rows = list(csv.reader((clips / "folds.csv").open()))
    for number, row in enumerate(rows[1:]):
        row[2] += "|third" if number % 3 == 0 else ""
    with (tmp_path / "several.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    line = command(clips, checkpoint, tmp_path / "out", "--folds", "2", "--label-separator", "|")
    line[2] = tmp_path / "several.csv"
    fairseq.run(tmp_path, *line, programs=programs)
    fold = tmp_path / "out/fold2"
    (row,) = json.loads((tmp_path / "out/crossval.json").read_text())["rows"]
    best = fold / "checkpoints/checkpoint_best.pt"
    printed = fairseq.run(tmp_path, "bridle", "evaluate", best, fold / "test.tsv", "--out", tmp_path / "evaluation")
    assert f"mAP              {row['mean']:.5f}" in printed and "precision_at_1" in printed


def reference_accuracy(fold):
    """Accuracy of the fold's best checkpoint, computed one test clip at a time."""
    from fairseq.checkpoint_utils import load_model_ensemble_and_task

    import bridle_fairseq

    bridle_fairseq.register()
    models, _, task = load_model_ensemble_and_task([str(fold / "checkpoints/checkpoint_best.pt")])
    root, *lines = (fold / "test.tsv").read_text().splitlines()
    labels = [task.classes.number(text) for text in (fold / "test.lbl").read_text().split()]
    waves = [soundfile.read(f"{root}/{line.split(chr(9))[0]}", dtype="float32")[0] for line in lines]
    with torch.no_grad():
        predicted = [int(models[0].eval()(torch.from_numpy(wave)[None]).argmax()) for wave in waves]
    return sum(a == b for a, b in zip(predicted, labels, strict=True)) / len(labels)


def test_training_error_is_reported(fairseq, programs, clips, checkpoint, tmp_path):
    wrong = command(clips, checkpoint, tmp_path / "out", overrides=["task.sample_rate=8000"])
    log = fairseq.run(tmp_path, *wrong, code=2, programs=programs)
    assert "fine-tuning failed: " in log and "train.log" in log and "Traceback" not in log
    assert "task.sample_rate is 8000" in log
    none = command(clips, checkpoint, tmp_path / "none", "--config-name", "none")
    assert "none.yaml: no such file" in fairseq.run(tmp_path, *none, code=2)
