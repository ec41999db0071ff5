"""The demo's pretraining: its stages, its configuration and its progress bar."""

from __future__ import annotations

import sys

import pytest

from bridle_fairseq.demo import training
from bridle_fairseq.training.configs import EXAMPLES
from bridle_fairseq.training.launch import TrainingRun
from bridle_fairseq.training.progress import train_with_bar
from bridle_fairseq.utils.errors import InputError

LINE = '[2025-01-01 10:00:00,000][train_inner][INFO] - {"epoch": 1, "loss": "2.5", "num_updates": "%d"}'


@pytest.mark.parametrize("updates", [30, 250, 600, 5000])
def test_stages_share_the_updates(updates: int) -> None:
    plan = training.stages(updates)
    assert [stage.kind for stage in plan] == ["encoder", "tokenizer"]
    assert sum(stage.updates for stage in plan) == pytest.approx(updates, abs=plan[1].updates / 2)
    assert plan[0].updates % plan[1].updates == 0  # a checkpoint at the end of the encoder stage
    assert all(stage.updates % 10 == 0 and 0 < stage.warmup_updates <= stage.updates for stage in plan)


def make_run(folder) -> TrainingRun:
    plan, overrides = training.stages(100), ["task.max_sample_size=48000"]
    configs = EXAMPLES / "audio" / "config" / "pretraining"
    return training.pretraining(folder, folder / "m", ["model.fbank_mean=-9.0"], plan, 7, overrides, configs)


def test_command_has_absolute_paths_and_the_settings_of_the_demo(tmp_path) -> None:
    command = make_run(tmp_path).command()
    assert command[0].endswith("fairseq-hydra-train")
    settings = dict(argument.split("=", 1) for argument in command if "=" in argument)
    assert settings["task.data"] == str(tmp_path / "m") and settings["common.seed"] == "7"
    assert settings["model.fbank_mean"] == "-9.0" and settings["task.max_sample_size"] == "48000"
    assert settings["model.stages"].count("kind:") == 2


def test_records_are_read_from_the_log(tmp_path, monkeypatch) -> None:
    code = f"print({LINE!r} % 10); print('hello'); print({LINE!r} % 20)"
    monkeypatch.setattr(TrainingRun, "command", lambda self: [sys.executable, "-c", code])
    records = train_with_bar(make_run(tmp_path), tmp_path / "log", 20)
    assert [record.update for record in records] == [10, 20]
    assert "hello" in (tmp_path / "log").read_text()


def test_resumed_run_keeps_earlier_records(tmp_path, monkeypatch) -> None:
    for update in (10, 20):
        command = [sys.executable, "-c", f"print({LINE!r} % {update})"]
        monkeypatch.setattr(TrainingRun, "command", lambda self, command=command: command)
        records = train_with_bar(make_run(tmp_path), tmp_path / "log", 20)
    assert [record.update for record in records] == [10, 20]


def test_failure_is_reported_with_its_last_error_and_the_log(tmp_path, monkeypatch) -> None:
    code = "print('working'); raise ValueError('the disk is full')"
    monkeypatch.setattr(TrainingRun, "command", lambda self: [sys.executable, "-c", code])
    with pytest.raises(InputError, match=r"pretraining failed: the disk is full .*log\)"):
        train_with_bar(make_run(tmp_path), tmp_path / "log", 20)


def test_run_without_a_checkpoint_is_reported(tmp_path) -> None:
    with pytest.raises(InputError, match="checkpoint_last.pt: pretraining ended without a checkpoint"):
        training.newest_checkpoint(tmp_path)


def test_checkpoint_after_a_stage_is_found(tmp_path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert training.checkpoint_after(tmp_path, 80) is None
    (tmp_path / "checkpoints" / "checkpoint_3_80.pt").touch()
    (tmp_path / "checkpoints" / "checkpoint_5_180.pt").touch()
    assert training.checkpoint_after(tmp_path, 80) == str(tmp_path / "checkpoints" / "checkpoint_3_80.pt")
