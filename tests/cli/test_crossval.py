"""``bridle crossval``: tables of ESC-50 and UrbanSound8K, resuming, results, invalid input."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bridle_fairseq.cli import main as bridle
from bridle_fairseq.nn.pooling_kinds import PROBED_SOUND
from bridle_fairseq.training import fold_runs as engine
from bridle_fairseq.training.fold_summary import CHOSEN
from bridle_fairseq.utils.files import locked

NAMES = ("dog", "rain")


def write_clips(folder: Path, style: str = "esc") -> tuple[Path, Path]:
    """Three folds of eight clips of two classes, told by their pitch, with a table as ESC-50 or UrbanSound8K has it."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        fold, kind = number // 8 + 1, number % 2
        name = f"{fold}-{number}-A-{kind}.wav"
        path = folder / "audio" / (f"fold{fold}/{name}" if style == "urban" else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.3 * np.sin((0.9, 0.1)[kind] * np.arange(4800)) + 0.05 * rng.standard_normal(4800)
        soundfile.write(path, wave, 16000)
        esc, urban = [name, fold, kind, NAMES[kind]], [name, 100, 0.0, 0.3, 1, fold, kind, NAMES[kind]]
        rows.append(urban if style == "urban" else esc)
    header = ["filename", "fold", "target", "category"]
    if style == "urban":
        header = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    table = folder / "folds.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return table, folder / "audio"


@pytest.fixture
def clips(tmp_path) -> tuple[str, str]:
    table, audio = write_clips(tmp_path)
    return str(table), str(audio)


def crossval(clips, out, *arguments) -> int:
    more = ["--workers", "1", "--device", "cpu", "--valid-percent", "0.25"]
    return bridle.main(["crossval", *map(str, clips), "--out", str(out), *more, *map(str, arguments)])


@pytest.fixture
def one_pooling(monkeypatch) -> None:
    """Where others cost time only."""
    monkeypatch.setattr(engine, "PROBED_SOUND", ("mean",))


def read(out) -> dict:
    return json.loads((Path(out) / "crossval.json").read_text())


@pytest.mark.parametrize("style", ["esc", "urban"])
def test_logmel_mode_with_tables_of_both_styles(tmp_path, capsys, style) -> None:
    out = tmp_path / "out"
    assert crossval(write_clips(tmp_path, style), out, "--mode", "logmel") == 0
    found = read(out)
    assert found["folds"] == ["1", "2", "3"]
    rows = {row["name"]: row for row in found["rows"]}
    assert set(rows) == {
        *(f"log-mel, {kind}, {probe}" for kind in ("deviation", "segments") for probe in ("linear", "knn")),
        "what validates best",
    }
    assert rows["log-mel, deviation, linear"]["folds"] == [1.0, 1.0, 1.0]
    printed = capsys.readouterr().out
    assert "24 clips, 2 classes, 3 folds" in printed and "test accuracy" in printed
    assert (out / "labels.csv").read_text().splitlines()[1:] == ["0,dog,dog", "1,rain,rain"]
    tests = [(out / f"fold{n}/test.tsv").read_text().splitlines()[1:] for n in "123"]
    assert [len(lines) for lines in tests] == [8, 8, 8]
    for fold, lines in enumerate(tests, 1):
        assert all(Path(line.split("\t")[0]).name.startswith(f"{fold}-") for line in lines)
        assert len((out / f"fold{fold}/valid.lbl").read_text().split()) == 4
    lines = list(csv.reader((out / "crossval.csv").open()))
    assert lines[0] == ["name", "fold 1", "fold 2", "fold 3", "mean", "std"]


def test_probe_mode_with_and_without_untrained(checkpoint, clips, tmp_path) -> None:
    crossval(clips, tmp_path / "a", "--checkpoint", checkpoint)
    crossval(clips, tmp_path / "b", "--checkpoint", checkpoint, "--untrained")
    names = [{row["name"] for row in read(tmp_path / name)["rows"]} for name in "ab"]
    kinds = [f"{pooling}, {probe}" for pooling in PROBED_SOUND for probe in ("linear", "knn")]
    assert names[0] == {*(f"encoder, {kind}" for kind in kinds), "what validates best"}
    assert names[1] == {*(f"untrained, {kind}" for kind in kinds), "what validates best"}
    a, b = (
        np.load(tmp_path / n / f"all.features.{kind}.layer1.npy")
        for n, kind in (("a", "mean"), ("b", "untrained.mean"))
    )
    assert a.shape == b.shape == (24, 32) and not np.allclose(a, b)


def test_difference_to_another_cross_validation(checkpoint, clips, tmp_path, capsys) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    crossval(clips, a, "--mode", "logmel")
    assert crossval(clips, b, "--checkpoint", checkpoint, "--untrained", "--against", a) == 0
    means = [{row["name"]: row["mean"] for row in read(folder)["rows"]}[CHOSEN] for folder in (b, a)]
    against = read(b)["against"]
    assert against["folder"] == str(a) and against["value"] == pytest.approx(means[0] - means[1])
    assert against["low"] <= against["value"] <= against["high"]
    printed = capsys.readouterr().out
    assert f"what validates best, minus that of {a}: {against['value']:+.3f} (95 % interval " in printed
    assert "over 24 test clips in 3 folds" in printed and "against" not in read(a)

    (a / "fold2/result.scores.npy").unlink()  # as of an earlier version
    assert crossval(clips, b, "--checkpoint", checkpoint, "--untrained", "--against", a) == 2
    assert "fold2/result.scores.npy: no such file; expected the scores of each clip" in capsys.readouterr().err
    assert crossval(clips, a, "--mode", "logmel") == 0  # without them everything else works
    table = Path(clips[0])
    table.write_text(table.read_text().replace("1-0-A-0.wav,1", "1-0-A-0.wav,2"))
    assert crossval(clips, tmp_path / "c", "--mode", "logmel", "--against", a) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a/fold1/test.tsv: other clips or classes than those that test fold 1 here; expected" in error
    assert not (tmp_path / "c/fold1/result.json").exists()
    assert crossval(clips, tmp_path / "c", "--mode", "logmel", "--against", tmp_path / "none") == 2
    assert "none/labels.csv" in capsys.readouterr().err


def test_resume_runs_only_missing_folds(checkpoint, clips, tmp_path, monkeypatch, one_pooling) -> None:
    crossval(clips, tmp_path / "whole", "--checkpoint", checkpoint)
    probe, done = engine._probe, []

    def dies(fold, *arguments):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(fold.name)
        return probe(fold, *arguments)

    monkeypatch.setattr(engine, "_probe", dies)
    assert crossval(clips, tmp_path / "out", "--checkpoint", checkpoint) == 130
    assert not (tmp_path / "out/crossval.json").exists()
    assert (tmp_path / "out/fold1/result.json").exists() and not (tmp_path / "out/fold2/result.json").exists()
    done.clear()
    monkeypatch.setattr(engine, "_probe", lambda *a: done.append(a[0].name) or probe(*a))
    before = (tmp_path / "out/all.features.json").stat().st_mtime_ns
    assert crossval(clips, tmp_path / "out", "--checkpoint", checkpoint) == 0
    assert done == ["2", "3"]
    assert (tmp_path / "out/all.features.json").stat().st_mtime_ns == before
    assert read(tmp_path / "out") == read(tmp_path / "whole")


def test_checkpoint_per_fold(save_checkpoint, clips, tmp_path, capsys, one_pooling) -> None:
    """Pretrained without the clips that test the fold."""
    for fold in (1, 2, 3):
        save_checkpoint(tmp_path / f"of {fold}.pt", seed=fold)
    out, own = tmp_path / "out", ["--checkpoint", tmp_path / "of {fold}.pt"]
    assert crossval(clips, out, *own) == 0
    for fold in (1, 2, 3):  # as when all folds have that fold's checkpoint
        alone = tmp_path / f"alone{fold}"
        crossval(clips, alone, "--checkpoint", tmp_path / f"of {fold}.pt", "--folds", fold)
        both = [json.loads((folder / f"fold{fold}/result.json").read_text()) for folder in (out, alone)]
        assert both[0] == both[1]
        arrays = [np.load(path / "all.features.mean.layer1.npy") for path in (out / f"fold{fold}", alone)]
        assert np.array_equal(*arrays)
    assert not np.allclose(arrays[0], np.load(out / "fold1/all.features.mean.layer1.npy"))
    save_checkpoint(tmp_path / "of 2.pt", seed=7)
    assert crossval(clips, out, *own) == 2
    assert "fold2/result.json: a result of another checkpoint than the fold has now" in capsys.readouterr().err
    others = [(out / f"fold{fold}/result.json").stat().st_mtime_ns for fold in (1, 3)]
    assert crossval(clips, out, *own, "--overwrite") == 0
    assert crossval(clips, tmp_path / "alone", "--checkpoint", tmp_path / "of 2.pt", "--folds", 2) == 0
    results = [json.loads((folder / "fold2/result.json").read_text()) for folder in (out, tmp_path / "alone")]
    assert results[0] == results[1] and read(out)["folds"] == ["1", "2", "3"]
    assert others == [(out / f"fold{fold}/result.json").stat().st_mtime_ns for fold in (1, 3)]
    (out / "fold2/result.json").unlink()  # as when it is killed half-way, with files of the old checkpoint
    save_checkpoint(tmp_path / "of 2.pt", seed=8)
    assert crossval(clips, out, *own) == 2
    assert "fold2/begun.json: a result of another checkpoint" in capsys.readouterr().err
    assert (out / "fold2/all.features.json").exists()
    (tmp_path / "of 3.pt").unlink()
    assert crossval(clips, tmp_path / "new", *own) == 2
    assert "of 3.pt: no such checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "new/settings.json").exists()


def test_bad_files_that_the_table_does_not_name_are_no_matter(clips, tmp_path, capsys) -> None:
    for number in range(20):
        Path(clips[1], f"other {number}.wav").write_bytes(b"RIFF")
    assert crossval(clips, tmp_path / "out", "--mode", "logmel") == 0
    assert "left out" not in capsys.readouterr().err


def test_results_of_other_settings_are_refused(checkpoint, clips, tmp_path, capsys, one_pooling) -> None:
    out = tmp_path / "out"
    crossval(clips, out, "--mode", "logmel")
    assert crossval(clips, out, "--checkpoint", checkpoint) == 2
    assert "results of other settings are there (mode logmel)" in capsys.readouterr().err
    assert crossval(clips, out, "--mode", "logmel", "--seed", "2") == 2
    assert crossval(clips, out, "--checkpoint", checkpoint, "--overwrite") == 0
    assert all("encoder" in row["name"] or row["name"] == CHOSEN for row in read(out)["rows"])


def test_results_with_fewer_poolings_are_refused(checkpoint, clips, tmp_path, capsys, one_pooling) -> None:
    """Version 0.1 probed two poolings, and its settings do not say so."""
    out = tmp_path / "out"
    crossval(clips, out, "--checkpoint", checkpoint, "--folds", "1")
    path = out / "settings.json"
    settings = json.loads(path.read_text())
    assert settings.pop("poolings") == ", ".join(PROBED_SOUND)
    path.write_text(json.dumps(settings))
    capsys.readouterr()
    assert crossval(clips, out, "--checkpoint", checkpoint) == 2
    sentence = "results of other settings are there (poolings mean, frequency); expected mean, statistics, frequency, "
    error = capsys.readouterr().err
    assert sentence + "frequency_statistics: choose another --out, or delete them with --overwrite" in error
    assert not (out / "fold2/result.json").exists() and json.loads(path.read_text()) == settings


def test_selected_folds(clips, tmp_path) -> None:
    crossval(clips, tmp_path / "out", "--mode", "logmel", "--folds", "2")
    assert read(tmp_path / "out")["folds"] == ["2"]


def test_multi_label_is_scored_by_map(clips, tmp_path, capsys) -> None:
    table = Path(clips[0])
    lines = table.read_text().splitlines()
    more = {1: "|near", 9: "|near", 12: "|near", 17: "|near|odd", 20: "|far", 22: "|far"}
    table.write_text("\n".join(line + more.get(number, "") for number, line in enumerate(lines)) + "\n")
    out = tmp_path / "out"
    assert crossval(clips, out, "--mode", "logmel", "--label-separator", "|") == 0
    printed = capsys.readouterr().out
    assert "24 clips, 5 classes, 3 folds" in printed and "test mAP" in printed
    assert "fold 1: 2 of 5 classes have no clip in it and are left out of its mAP" in printed  # far and odd
    assert (out / "fold3/test.lbl").read_text().splitlines().count("dog,near,odd") == 1
    found, rows = read(out), {}
    assert (found["metric"], found["settings"]["label_separator"]) == ("mAP", "|")
    old = {name: value for name, value in found["settings"].items() if name != "stratification"}
    (out / "settings.json").write_text(json.dumps(old))  # of a version that drew other clips for validation
    assert crossval(clips, out, "--mode", "logmel", "--label-separator", "|") == 2
    assert "results of other settings are there (stratification None)" in capsys.readouterr().err
    rows = {row["name"]: row for row in found["rows"]}
    assert min(rows["log-mel, deviation, linear"]["folds"]) > 0.5  # dog and rain are told without fail
    assert crossval(clips, tmp_path / "single", "--mode", "logmel") == 0  # each cell is a class
    assert "24 clips, 6 classes" in capsys.readouterr().out


def spoil(table: Path, audio: Path, name: str) -> None:
    lines = table.read_text().splitlines()
    if name == "missing file":
        (audio / "2-8-A-0.wav").unlink()
    elif name == "one class in a fold":
        lines = [line.replace(",1,rain", ",0,dog") if line.startswith("2-") else line for line in lines]
    elif name == "no fold":
        lines[3] = lines[3].replace(",1,0,dog", ",,0,dog").replace(",1,1,rain", ",,1,rain")
    elif name == "one fold":
        lines = [lines[0], *(",".join([cells[0], "1", *cells[2:]]) for cells in (x.split(",") for x in lines[1:]))]
    elif name == "no fold column":
        lines[0] = lines[0].replace("fold", "part")
    elif name == "unknown class":
        (table.parent / "classes.csv").write_text("index,mid,display_name\n0,dog,dog\n1,cat,cat\n")
    table.write_text("\n".join(lines) + "\n")


MISTAKES = {
    "missing file": ([], "1 of 24 files are not there or cannot be read, such as '2-8-A-0.wav'"),
    "one class in a fold": ([], "fold '2': all 8 clips of the fold are 'dog'"),
    "no fold": ([], "has an empty fold"),
    "one fold": ([], "are in fold '1'; expected at least 2 folds"),
    "no fold column": ([], "expected for the fold 'fold'"),
    "unknown class": (["--classes", "{tmp}/classes.csv"], "unknown class 'rain'"),
    "no such fold": (["--folds", "7"], "fold '7' has no clips; expected one of 1, 2, 3"),
    "no checkpoint": (["--mode", "probe"], "--mode probe needs --checkpoint"),
    "overrides without training": (["--", "optimization.max_update=3"], "expected overrides of training with --mode"),
    "no share for validation": (["--valid-percent", "0"], "share for validation 0.0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_and_exit_code_2(clips, tmp_path, capsys, name) -> None:
    spoil(Path(clips[0]), Path(clips[1]), name)
    arguments, sentence = MISTAKES[name]
    mode = [] if "--mode" in arguments else ["--mode", "logmel"]
    assert crossval(clips, tmp_path / "out", *mode, *(text.format(tmp=tmp_path) for text in arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("bridle: error: ") and sentence in error
    assert not (tmp_path / "out/settings.json").exists()


def test_overwrite_deletes_only_folds(clips, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    mine = {"folders/x": "x", "fold 7/begun.json": '{"fold": "other"}', "fold8/begun.json": "{", "fold9": "x"}
    for name, text in mine.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    (tmp_path / "elsewhere").mkdir()
    (out / "foldlink").symlink_to(tmp_path / "elsewhere")
    assert crossval(clips, out, "--mode", "logmel") == 0
    (out / "fold1/stale").touch()
    assert crossval(clips, out, "--mode", "logmel", "--seed", "2", "--overwrite") == 0
    assert {name: (out / name).read_text() for name in mine} == mine and (out / "foldlink").is_symlink()
    assert not (out / "fold1/stale").exists()
    (out / "fold2/result.json").write_text('{"fold": "of something else"}')
    (out / "fold2/begun.json").unlink()
    assert crossval(clips, out, "--mode", "logmel", "--seed", "2", "--overwrite") == 2
    assert "fold2: it holds no fold of bridle crossval" in capsys.readouterr().err
    assert (out / "fold2/result.json").exists()


def test_fold_that_another_process_runs_is_awaited_and_not_deleted(clips, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    crossval(clips, out, "--mode", "logmel")
    with locked(out / "fold1"):
        assert crossval(clips, out, "--mode", "logmel", "--seed", "2", "--overwrite") == 2
    assert "fold1: another process runs this fold" in capsys.readouterr().err
    (out / "fold1/result.json").rename(tmp_path / "result.json")
    waited = []

    def other_process(folder, wait=True):
        if not wait:
            return contextlib.nullcontext(folder.name != "fold1")
        waited.append(folder.name)
        (tmp_path / "result.json").rename(folder / "result.json")
        return contextlib.nullcontext(True)

    monkeypatch.setattr(engine, "locked", other_process)
    monkeypatch.setattr(engine, "_probe", lambda *a: pytest.fail("computed again"))
    assert crossval(clips, out, "--mode", "logmel") == 0
    assert waited == ["fold1"] and "fold 1: waiting for another process" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[1]", '{"fold": "1", "checkpoint_sha256": "", "rows": []}'])
def test_damaged_result_is_one_sentence(clips, tmp_path, capsys, text) -> None:
    crossval(clips, tmp_path, "--mode", "logmel")
    (tmp_path / "fold1/result.json").write_text(text)
    assert crossval(clips, tmp_path, "--mode", "logmel") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "fold1/result.json: " in line and line.endswith("remove it to do the fold again")
