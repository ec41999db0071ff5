"""``bridle probe``: table and files, computed and stored features, invalid input."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bridle_fairseq.cli import main as bridle
from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.nn.pooling_kinds import PROBED_SOUND

CLIPS = {"train": 24, "valid": 12, "test": 12}
CLASSES = ("high", "low", "wide")


def write_split(folder: Path, split: str, count: int, seed: int, several: bool = False) -> None:
    """Clips of 0.3 s whose pitch says their class (and for ``several`` their loudness another one)."""
    rng = np.random.default_rng(seed)
    names, labels = [], []
    for number in range(count):
        kind, loud = number % 2, bool(number % 3 == 0)
        pitch = (0.9, 0.1)[kind] + 0.02 * rng.standard_normal()
        wave = (0.6 if loud else 0.1) * np.sin(pitch * np.arange(4800)) + 0.01 * rng.standard_normal(4800)
        names.append(f"{split} {number}.wav")
        soundfile.write(folder / names[-1], wave, 16000)
        labels.append([kind] + [2] * (several and loud))
    Manifest(str(folder), names, [4800] * count).write(folder / f"{split}.tsv")
    Labels(labels, Classes(CLASSES, CLASSES)).write(folder / f"{split}.lbl")


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    Classes(CLASSES, CLASSES).write(folder / "labels.csv")
    for seed, (split, count) in enumerate(CLIPS.items()):
        write_split(folder, split, count, seed)
    return folder


def probe(*arguments: str) -> int:
    if not Path(arguments[0]).is_dir():
        arguments = (*arguments, "--workers", "1", "--device", "cpu")
    return bridle.main(["probe", *map(str, arguments)])


def test_table_with_baselines(checkpoint, data, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert probe(checkpoint, data, "--out", out, "--resamples", "50") == 0
    found = json.loads((out / "probe.json").read_text())
    kinds = [(row["features"], row["pooling"], row["probe"]) for row in found["rows"]]
    sources = [(s, p) for s in ("encoder", "untrained") for p in PROBED_SOUND]
    sources += [("log-mel", "deviation"), ("log-mel", "segments")]
    assert kinds == [(*source, name) for source in sources for name in ("linear", "knn")]
    assert (found["metric"], found["clips"]) == ("accuracy", CLIPS)
    scores = {kind: row["test"] for kind, row in zip(kinds, found["rows"], strict=True)}
    assert scores["log-mel", "deviation", "linear"] == 1.0  # pitch is plain to see there
    for row in found["rows"]:
        low, high = row["interval"]
        assert low <= row["test"] <= high
        assert row["valid"] == max(row["valid_of_layers"].values())
    printed = capsys.readouterr().out
    assert "accuracy (24 train, 12 valid, 12 test clips, always the most frequent class: 0.500)" in printed
    tests = {f"{', '.join(kind)}": score for kind, score in scores.items()}
    compared = [(one["probe"], one["second"].split(",")[0]) for one in found["differences"]]
    assert compared == [(name, source) for name in ("linear", "knn") for source in ("untrained", "log-mel")]
    for one in found["differences"]:
        assert one["value"] == pytest.approx(tests[one["first"]] - tests[one["second"]])
        assert one["low"] <= one["value"] <= one["high"]
        assert f"{one['value']:+.3f}" in printed
    lines = list(csv.DictReader((out / "probe.csv").open()))
    assert [float(line["test"]) for line in lines] == [row["test"] for row in found["rows"]]
    for line in lines:
        assert any(all(line[key] in text for key in ("features", "pooling", "chosen")) for text in printed.splitlines())


@pytest.mark.parametrize("missing", [("test",), ("test", "valid")])
def test_without_a_test_split_folds_of_train_are_tested(checkpoint, data, tmp_path, capsys, missing) -> None:
    for split in missing:
        (data / f"{split}.tsv").unlink()
    assert probe(checkpoint, data, "--out", tmp_path / "out", "--no-baselines", "--pooling", "mean") == 0
    found = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert found["cross_validation"] == {"split": "train", "folds": 5}
    assert (
        len(found["rows"]) == 2
        and found["differences"] == []
        and all(0 <= row["test"] <= 1 and row["interval"] is None for row in found["rows"])
    )
    said = "no test.tsv, so test is the mean of a cross-validation over 5 folds of train"
    assert said in capsys.readouterr().out
    (data / "train.tsv").unlink()
    assert probe(checkpoint, data) == 2 and "train.tsv" in capsys.readouterr().err


def test_probed_features_are_those_of_each_encoder(checkpoint, data, tmp_path, monkeypatch) -> None:
    """What goes into the probes is what `encoder_features` gives for each clip."""
    import torch

    from bridle_fairseq.evaluation import probe_table as comparison
    from bridle_fairseq.inference.extractors import encoder_features, random_init_copy
    from bridle_fairseq.models.checkpoints import load_model

    seen = {}
    monkeypatch.setattr(
        comparison, "compare", lambda features, labels, *a, **o: seen.update(features=features, labels=labels) or []
    )
    monkeypatch.setattr(comparison, "table", lambda rows, metric: "")
    probe(checkpoint, data, "--seed", "3", "--pooling", "mean")
    model = load_model(checkpoint)[0]
    for source, encoder in (("encoder", model), ("untrained", random_init_copy(model, 3))):
        (array,) = (array for array in seen["features"] if array.source == source)
        for row in (0, 5):
            clip = torch.from_numpy(soundfile.read(data / f"test {row}.wav", dtype="float32")[0])[None]
            expected = encoder_features(encoder, clip)["mean", 1][0]
            np.testing.assert_allclose(seen["features"][array].test[row], expected, atol=1e-5, rtol=1e-4)
    assert seen["labels"].test.tolist() == [0, 1] * 6


def test_another_encoder_is_probed_on_the_same_clips(save_checkpoint, checkpoint, data, tmp_path, capsys) -> None:
    other = tmp_path / "other.pt"
    save_checkpoint(other, seed=9)
    options = ["--no-baselines", "--probes", "ridge", "--pooling", "mean", "--resamples", "20"]
    assert probe(checkpoint, data, *options, "--against", other, "--out", tmp_path / "both") == 0
    assert probe(other, data, *options, "--out", tmp_path / "alone") == 0
    both, alone = (json.loads((tmp_path / name / "probe.json").read_text()) for name in ("both", "alone"))
    assert {**both["rows"][1], "features": "encoder"} == alone["rows"][0] != both["rows"][0]
    assert both["against_sha256"] == alone["checkpoint_sha256"] != both["checkpoint_sha256"]
    (one,) = both["differences"]
    assert one["value"] == pytest.approx(both["rows"][0]["test"] - both["rows"][1]["test"])
    assert one["second"] == "against, mean, ridge" and alone["differences"] == []
    stored = str(tmp_path / "stored")  # the other encoder as features that were written before
    for split in CLIPS:
        pooled = ["--out", stored, "--pooling", "mean", "--layers", "all", "--device", "cpu"]
        assert bridle.main(["features", str(other), str(data / f"{split}.tsv"), *pooled]) == 0
    assert probe(checkpoint, data, *options, "--against", stored, "--out", tmp_path / "stored pair") == 0
    again = json.loads((tmp_path / "stored pair" / "probe.json").read_text())
    assert again["rows"] == both["rows"] and again["differences"] == both["differences"]
    capsys.readouterr()
    assert probe(checkpoint, data, "--against", "none.pt") == 2
    printed = capsys.readouterr()
    assert "none.pt: no such checkpoint" in printed.err and "clips/s" not in printed.err


def test_stored_features_equal_computed_ones(checkpoint, data, tmp_path) -> None:
    pooling = ["--pooling", "mean", "frequency_statistics"]
    for split in CLIPS:
        tsv, stored = str(data / f"{split}.tsv"), str(tmp_path / "stored")
        assert bridle.main(["features", checkpoint, tsv, "--out", stored, *pooling, "--device", "cpu"]) == 0
    probe(tmp_path / "stored", data, "--out", tmp_path / "a", "--resamples", "20")
    probe(checkpoint, data, "--out", tmp_path / "b", "--resamples", "20", "--no-baselines", *pooling)
    a, b = (json.loads((tmp_path / name / "probe.json").read_text()) for name in "ab")
    assert a["rows"] == b["rows"] and len(a["rows"]) == 4
    assert a["checkpoint_sha256"] == b["checkpoint_sha256"]


@pytest.mark.parametrize("kind", ["linear", "ridge"])
def test_multi_label_is_scored_by_map(checkpoint, data, tmp_path, monkeypatch, capsys, kind) -> None:
    for seed, (split, count) in enumerate(CLIPS.items()):
        write_split(data, split, count, seed, several=True)
    if kind == "ridge":  # which the light install has
        monkeypatch.setitem(sys.modules, "sklearn", None)
    options = ["--resamples", "10", "--probes", kind, "--pooling", "mean"]
    assert probe(checkpoint, data, "--out", tmp_path / "out", *options) == 0
    rows = json.loads((tmp_path / "out/probe.json").read_text())["rows"]
    assert max(row["test"] for row in rows if row["features"] == "log-mel") > 0.95
    assert "mAP (24 train" in capsys.readouterr().out


def test_unreadable_clips_are_left_out(checkpoint, data, tmp_path, capsys) -> None:
    (data / "train 0.wav").write_bytes(b"RIFF")
    out = ["--out", tmp_path / "out", "--probes", "linear", "--pooling", "mean", "--resamples", "0"]
    assert probe(checkpoint, data, *out, "--max-skipped", "0") == 2
    assert "train 0.wav" in capsys.readouterr().err
    assert probe(checkpoint, data, *out) == 0
    assert "train: 1 of 24 clips cannot be read\n" in capsys.readouterr().err
    found = json.loads((tmp_path / "out/probe.json").read_text())
    assert found["clips"]["train"] == 23 and found["rows"][-2]["test"] == 1.0
    assert "train 0.wav" in (tmp_path / "out/train.skipped.tsv").read_text()


def test_attentive_probe_of_the_last_layer(checkpoint, data, tmp_path, monkeypatch, capsys) -> None:
    from bridle_fairseq.evaluation import attentive
    from bridle_fairseq.inference import features

    monkeypatch.setattr(attentive, "UPDATES", 10)
    monkeypatch.setattr(attentive, "EPOCHS", 1)
    kinds = ["--probes", "ridge", "attentive", "--pooling", "mean", "--resamples", "20"]
    assert probe(checkpoint, data, *kinds, "--out", tmp_path / "a") == 0
    found = json.loads((tmp_path / "a" / "probe.json").read_text())
    rows = {(row["features"], row["pooling"], row["probe"]): row for row in found["rows"]}
    assert set(rows) == {
        *(
            (source, *kind)
            for source in ("encoder", "untrained")
            for kind in (("mean", "ridge"), ("patches", "attentive"))
        ),
        *(("log-mel", pooling, "ridge") for pooling in ("deviation", "segments")),
    }
    assert set(rows["encoder", "patches", "attentive"]["settings"]) == {"lr", "weight_decay"}
    assert [one["second"] for one in found["differences"] if one["probe"] == "attentive"] == [
        "untrained, patches, attentive"
    ]
    stored = str(tmp_path / "stored")
    for split in CLIPS:
        of_patches = ["--out", stored, "--pooling", "patches", "--dtype", "float16", "--device", "cpu"]
        assert bridle.main(["features", checkpoint, str(data / f"{split}.tsv"), *of_patches]) == 0
    only = ["--probes", "attentive", "--resamples", "20"]
    assert probe(stored, data, *only, "--out", tmp_path / "b") == 0
    (again,) = json.loads((tmp_path / "b" / "probe.json").read_text())["rows"]
    assert again == rows["encoder", "patches", "attentive"]
    capsys.readouterr()
    monkeypatch.setattr(features, "available_memory", lambda: 1000)
    assert probe(checkpoint, data, *only) == 2
    assert "train: the patches of 24 clips take" in capsys.readouterr().err
    assert probe(checkpoint, data, "--probes", "ridge", "--resamples", "0") == 0  # needs no patches
    (data / "test.tsv").unlink()
    assert probe(stored, data, *only, "--out", tmp_path / "folds") == 0
    assert json.loads((tmp_path / "folds" / "probe.json").read_text())["cross_validation"]["folds"] == 5


def spoil(data: Path, name: str) -> None:
    if name == "no labels":
        (data / "valid.lbl").unlink()
    elif name == "unknown class":
        (data / "test.lbl").write_text("yak\n" * 12)
    elif name == "one class":
        (data / "train.lbl").write_text("low\n" * 24)
    elif name == "no training split":
        (data / "train.tsv").unlink()


MISTAKES = {
    "no labels": "valid.lbl: cannot read these labels",
    "unknown class": "unknown class 'yak'",
    "one class": "1 class ('low'); expected 2 at least",
    "no training split": "train.tsv",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_and_exit_code_2(checkpoint, data, capsys, name) -> None:
    spoil(data, name)
    assert probe(checkpoint, data) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("bridle: error: ") and MISTAKES[name] in error


def test_missing_or_unpooled_stored_features_are_refused(checkpoint, data, tmp_path, capsys) -> None:
    stored = str(tmp_path / "stored")
    assert probe(data, data) == 2
    assert "train.features.json" in capsys.readouterr().err
    for split in CLIPS:
        bridle.main(["features", checkpoint, str(data / f"{split}.tsv"), "--out", stored, "--pooling", "patches"])
    assert probe(stored, data) == 2
    assert "patches only" in capsys.readouterr().err
    for split in CLIPS:
        pooled = ["--out", f"{stored} pooled", "--pooling", "mean"]
        bridle.main(["features", checkpoint, str(data / f"{split}.tsv"), *pooled])
    assert probe(f"{stored} pooled", data, "--probes", "attentive") == 2
    assert "no patches; expected features of --pooling patches" in capsys.readouterr().err


def test_missing_sklearn_is_said_before_features_are_computed(data, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert probe("none.pt", data) == 2
    assert "sklearn is not installed; this needs the extra 'train'" in capsys.readouterr().err
