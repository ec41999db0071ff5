"""Runs by the name of their configuration: paths, statistics, a run that goes on, the command line of bridle train."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from bridle_fairseq.cli.main import main
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.prepare.statistics_cache import cache_path
from bridle_fairseq.training.launch import TrainingRun, shown
from bridle_fairseq.training.train import PreparedRun, TrainOptions, prepare
from bridle_fairseq.utils.errors import InputError

LINE = (
    '[2025-01-01 10:00:00,000][train_inner][INFO] - {"loss": "2.5", "acc_1": "0.25", "stage": "1", "num_updates": "%d"}'
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of manifests of four clips."""
    folder = tmp_path / "data"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", 0.1 * random.standard_normal(8000), 16000)
    for split in ("train", "valid"):
        Manifest(folder, [f"{n}.wav" for n in range(4)], [8000] * 4).write(folder / f"{split}.tsv")
    return folder


def overrides(data: Path, *more: str, config: str = "audio/tiny") -> tuple[dict[str, str], PreparedRun, list[str]]:
    """Overrides by name of a prepared run, the run, and what it said."""
    said: list[str] = []
    run = prepare(TrainOptions(config, str(data), str(data.parent / "run"), more), said.append)
    return dict(text.split("=", 1) for text in run.training.command() if "=" in text), run, said


def test_statistics_are_measured_once_and_kept_beside_the_manifest(data: Path) -> None:
    first, run, said = overrides(data)
    assert run.updates and said == ["4 clips, 192 frames; 0 skipped"]
    assert float(first["model.fbank_mean"]) != -4.268 and float(first["model.fbank_std"]) > 0
    again, _, said = overrides(data)
    assert said == [f"statistics of 4 clips, 0 skipped: {cache_path(data / 'train.tsv')}"]
    assert again == first
    other, _, said = overrides(data, "+model.num_mel_bins=64")
    assert said == ["4 clips, 192 frames; 0 skipped"] and other["model.fbank_mean"] != first["model.fbank_mean"]
    assert overrides(data)[2] == [
        f"statistics of 4 clips, 0 skipped: {cache_path(data / 'train.tsv')}"
    ]  # both are kept


@pytest.mark.parametrize(
    ("config", "frames", "line"),
    [("images/tiny", 1, "1 images, 4096 pixels"), ("video/tiny", 4, "1 clips, 32768 pixels")],
)
def test_statistics_of_images_and_videos(tmp_path: Path, config: str, frames: int, line: str) -> None:
    if config.startswith("video"):
        pytest.importorskip("av")
    data = tmp_path / "data"
    data.mkdir()
    pixels = np.random.default_rng(0).integers(0, 100, (frames, 24, 24, 3)).astype(np.uint8)
    first, *others = map(Image.fromarray, pixels)
    first.save(data / "x.gif", save_all=True, append_images=others)
    Manifest(data, ["x.gif"], [frames]).write(data / "train.tsv")
    values, _, said = overrides(data, config=config)
    assert said == [f"{line}; 0 skipped"]
    assert 0 < json.loads(values["model.pixel_mean"])[0] < 0.3 and "model.fbank_mean" not in values


def test_statistics_are_of_the_sample_rate_of_the_task(data: Path) -> None:
    overrides(data, "task.sample_rate=8000")
    entry = json.loads(cache_path(data / "train.tsv").read_text())["entries"][0]
    assert entry["input"]["sample_rate"] == 8000


def test_statistics_of_other_rows_or_in_a_damaged_file_are_measured_anew(data: Path) -> None:
    overrides(data)
    Manifest(data, ["0.wav", "1.wav"], [8000] * 2).write(data / "train.tsv")
    assert overrides(data)[2] == ["2 clips, 96 frames; 0 skipped"]
    cache_path(data / "train.tsv").write_text("{")
    said = overrides(data)[2]
    assert "train.stats.json: cannot read this description of statistics" in said[0] and said[0].endswith(
        "measuring again"
    )
    assert json.loads(cache_path(data / "train.tsv").read_text())["entries"][0]["clips"] == 2


def test_bridle_stats_always_measures_and_writes_what_training_uses(data: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["stats", str(data / "train.tsv"), "--workers", "0"]) == 0
    printed = dict(text.split("=") for text in capsys.readouterr().out.split())
    used, _, said = overrides(data)
    assert said[0].startswith("statistics of 4 clips") and printed.items() <= used.items()
    assert main(["stats", str(data / "train.tsv"), "--workers", "0"]) == 0
    assert "4 clips, 192 frames" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/proc/self/mem"), reason="needs a folder to refuse")
def test_a_folder_that_takes_no_statistics_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path, statistics):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("bridle_fairseq.prepare.statistics.write_statistics", refuse)
    values, _, said = overrides(data)
    assert "model.fbank_mean" in values and "not written (Permission denied)" in said[1]


def test_chosen_statistics_stay(data: Path) -> None:
    values, _, said = overrides(data, "model.fbank_mean=-7", "model.fbank_std=3")
    assert (values["model.fbank_mean"], said) == ("-7", [])


def test_a_run_goes_on_with_the_statistics_it_was_started_with(data: Path) -> None:
    run = data.parent / "run"
    run.mkdir()
    model = {"_name": "bridle", "modality": "audio", "fbank_mean": -6.123456, "fbank_std": 4.5}
    torch.save({"model": {}, "cfg": {"model": model}}, run / "checkpoint_last.pt")
    values, _, said = overrides(data)
    assert (values["model.fbank_mean"], values["model.fbank_std"], said) == ("-6.123456", "4.5", [])
    (run / "checkpoint_last.pt").write_bytes(b"damaged")
    assert overrides(data)[2] == ["4 clips, 192 frames; 0 skipped"]


def test_paths_are_absolute_and_other_values_as_they_are(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    (data.parent / "a b.pt").touch()
    said: list[str] = []
    options = TrainOptions(
        "audio/finetuning/tiny", "data", "run", ["model.checkpoint=a b.pt", "+x=1", "~y", "model.pooling=data"]
    )
    command = prepare(options, said.append).training.command()
    assert f"model.checkpoint='{data.parent}/a b.pt'" in command and f"task.data={data}" in command
    assert f"checkpoint.save_dir={data.parent}/run" in command and f"hydra.run.dir={data.parent}/run" in command
    assert command[-3:] == ["+x=1", "~y", "model.pooling=data"] and said == []
    hub = TrainOptions("audio/finetuning/tiny", "data", "run", ["model.checkpoint=owner/name"])
    assert prepare(hub, said.append).training.command()[-1] == "model.checkpoint=owner/name"
    gone = TrainOptions(
        "audio/finetuning/tiny", "data", "run", ["model.checkpoint=gone.pt", "checkpoint.restore_file=x.pt"]
    )
    assert prepare(gone, said.append).training.command()[-2:] == [
        f"model.checkpoint={data.parent}/gone.pt",
        "checkpoint.restore_file=x.pt",  # fairseq looks for it in save_dir
    ]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["optimization.max_update"], "'optimization.max_update'; expected settings as key=value"),
        (["=3"], "'=3'; expected settings as key=value"),
    ],
)
def test_malformed_overrides_are_refused(data: Path, more: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        overrides(data, *more)


def test_mistakes_in_settings_are_left_to_the_run(data: Path) -> None:
    """fairseq-hydra-train has a sentence for each of them."""
    _, run, said = overrides(data, "optimization.max_updat=3")
    assert run.updates is None and said == [] and run.training.command()[-1] == "optimization.max_updat=3"


def test_a_folder_without_manifests_and_a_file_as_run_are_refused(data: Path) -> None:
    with pytest.raises(InputError, match="no train.tsv; expected a folder that bridle manifest wrote: bridle manifest"):
        overrides(data.parent)
    with pytest.raises(InputError, match="MEDIA --dest FOLDER --modality image$"):
        overrides(data.parent, config="images/tiny")
    with pytest.raises(InputError, match="train.tsv: a file; expected the folder of train.tsv$"):
        prepare(TrainOptions("audio/tiny", str(data / "train.tsv"), "run"), print)
    (data.parent / "run").touch()
    with pytest.raises(InputError, match="run: a file; expected the folder of the run"):
        overrides(data)


def test_length_of_a_run(data: Path) -> None:
    assert overrides(data, "optimization.max_update=7")[1].updates == 7
    stages = "model.stages=[{kind:encoder,updates:3},{kind:tokenizer,updates:2}]"
    assert overrides(data, stages)[1].updates == 5
    epochs = ("optimization.max_update=0", "optimization.max_epoch=2")
    assert overrides(data, *epochs, config="audio/finetuning/tiny")[1].updates is None


def test_the_printed_command_is_one_for_a_shell() -> None:
    command = ["x", "--config-name", "tiny", "a='/b c'", "d=[1]", 'e="$f"']
    assert shown(command) == "x --config-name tiny \\\n  \"a='/b c'\" \\\n  'd=[1]' \\\n  'e=\"$f\"'"


def test_train_prints_the_command_and_shows_progress(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    given: list[list[str]] = []
    original = TrainingRun.command
    warning = "[2025-01-01 10:00:00,000][bridle_fairseq.x][WARNING] - 2 clips are left out"
    code = f"print({LINE!r} % 10); print({warning!r}); print({warning!r}); print('a module'); print({LINE!r} % 20)"

    def command(self: TrainingRun) -> list[str]:
        given.append(original(self))
        return [sys.executable, "-c", code]

    arguments = ["train", "audio/tiny", str(data), "dataset.batch_size=2", "--run", "run", "optimization.max_update=20"]
    monkeypatch.chdir(data.parent)
    assert main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "dataset.batch_size=2" in printed and "optimization.max_update=20" in printed
    assert not (data.parent / "run").exists()
    monkeypatch.setattr(TrainingRun, "command", command)
    (data.parent / "run").mkdir()
    (data.parent / "run" / "skipped.tsv").write_text("3\t/x.wav\tdamaged\n5\t/y.wav\tdamaged\n3\t/x.wav\tdamaged\n")
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "run/checkpoint_last.pt: 20 updates" in said.out and "bridle report run" in said.out
    assert f"2 clips could not be read: {data.parent}/run/skipped.tsv" in said.out
    assert (
        re.search(r"<00:00, stage 1, loss 2\.5, accuracy 0\.25, +[0-9.]+ updates/s\]", said.err) and "20/20" in said.err
    )
    assert said.err.count("training: 2 clips are left out") == 1 and "a module" not in said.err
    assert (data.parent / "run" / "train.log").read_text().count("a module") == 1
    with pytest.raises(SystemExit):
        main([*arguments, "--no-such-option"])
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err
