"""The demo's pretraining: its stages, its bar and how a failure is told."""

from __future__ import annotations

import sys

import pytest

from bridle_fairseq.demo import training
from bridle_fairseq.utils.errors import InputError

LINE = '[2025-01-01 10:00:00,000][train_inner][INFO] - {"epoch": 1, "loss": "2.5", "num_updates": "%d"}'


@pytest.mark.parametrize("updates", [30, 250, 600, 5000])
def test_stages_share_the_updates(updates: int) -> None:
    plan = training.stages(updates)
    assert [stage.kind for stage in plan] == ["encoder", "tokenizer", "encoder"]
    assert sum(stage.updates for stage in plan) == pytest.approx(updates, abs=15)
    assert all(stage.updates % 10 == 0 and 0 < stage.warmup_updates <= stage.updates for stage in plan)


def test_the_command_is_fairseqs_own_and_names_whole_paths(tmp_path) -> None:
    plan = training.stages(100)
    command = training.command(
        tmp_path, tmp_path / "m", ["model.fbank_mean=-9.0"], plan, 7, ["task.max_sample_size=48000"]
    )
    assert command[0].endswith("fairseq-hydra-train")
    settings = dict(argument.split("=", 1) for argument in command if "=" in argument)
    assert settings["task.data"] == str(tmp_path / "m") and settings["common.seed"] == "7"
    assert settings["model.fbank_mean"] == "-9.0" and settings["task.max_sample_size"] == "48000"
    assert settings["model.stages"].count("kind:") == 3


def test_records_come_from_the_log_which_keeps_everything(tmp_path) -> None:
    code = f"print({LINE!r} % 10); print('hello'); print({LINE!r} % 20)"
    records = training.train([sys.executable, "-c", code], tmp_path / "log", 20)
    assert [record.update for record in records] == [10, 20]
    assert "hello" in (tmp_path / "log").read_text()


def test_a_resumed_run_keeps_what_was_logged_before(tmp_path) -> None:
    for update in (10, 20):
        records = training.train([sys.executable, "-c", f"print({LINE!r} % {update})"], tmp_path / "log", 20)
    assert [record.update for record in records] == [10, 20]


def test_a_failure_is_its_last_error_and_where_the_log_is(tmp_path) -> None:
    code = "print('working'); raise ValueError('the disk is full')"
    with pytest.raises(InputError, match=r"the disk is full .*log\)"):
        training.train([sys.executable, "-c", code], tmp_path / "log", 20)
