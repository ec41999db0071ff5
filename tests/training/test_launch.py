"""The runner of fairseq-hydra-train: its command line, its log and its errors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bridle_fairseq.training import launch
from bridle_fairseq.training.configs import EXAMPLES
from bridle_fairseq.training.launch import TrainingRun, override
from bridle_fairseq.utils.errors import InputError, sentence_of

LINE = '[2025-01-01 10:00:00,000][train_inner][INFO] - {"epoch": 1, "loss": "2.5", "num_updates": "%d"}'


def run_in(folder: Path, **options) -> TrainingRun:
    overrides = ["task.data=/d", "optimization.lr=[0.1]"]
    config_dir = EXAMPLES / "audio" / "config" / "pretraining"
    return TrainingRun(config_dir, "tiny", folder / "saves", folder / "hydra", overrides, **options)


@pytest.fixture
def prints(monkeypatch):
    """``prints(code)``: runs execute this Python code instead of fairseq-hydra-train."""

    def replace(code: str) -> None:
        monkeypatch.setattr(TrainingRun, "command", lambda self: [sys.executable, "-c", code])

    return replace


def test_command_names_the_configuration_and_ends_with_the_overrides(tmp_path) -> None:
    command = run_in(tmp_path, cpu=True).command()
    assert command[0].endswith("fairseq-hydra-train")
    assert command[-2:] == ["task.data=/d", "optimization.lr=[0.1]"]
    assert (Path(command[command.index("--config-dir") + 1]) / "tiny.yaml").is_file()
    expected = {f"checkpoint.save_dir={tmp_path / 'saves'}", f"hydra.run.dir={tmp_path / 'hydra'}", "common.cpu=true"}
    assert expected <= set(command)
    assert "common.cpu=true" not in run_in(tmp_path, cpu=False).command()


def test_missing_script_and_configurations_are_reported(tmp_path, monkeypatch) -> None:
    with pytest.raises(InputError, match="none: no such folder; expected one with configurations"):
        TrainingRun(tmp_path / "none", "tiny", tmp_path, tmp_path).command()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="fairseq-hydra-train was not found"):
        run_in(tmp_path).command()
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as missing:
        run_in(tmp_path).command()
    assert "this needs the extra 'train': uv pip install 'bridle_fairseq[train]'" in sentence_of(missing.value)


@pytest.mark.parametrize("listening", [True, False])
def test_failure_is_reported_with_its_last_error_and_the_log(tmp_path, prints, listening) -> None:
    prints("print('working'); raise ValueError('the disk is full')")
    with pytest.raises(InputError, match=r"pretraining failed: the disk is full .*log\)"):
        run_in(tmp_path, name="pretraining").run(tmp_path / "a" / "log", print if listening else None)
    assert "working" in (tmp_path / "a" / "log").read_text()


def test_records_are_passed_on_and_the_log_keeps_everything(tmp_path, prints) -> None:
    updates = []
    for update in (10, 20):
        prints(f"print({LINE!r} % {update}); print('hello')")
        run_in(tmp_path).run(tmp_path / "log", lambda record: updates.append(record.update))
    assert updates == [10, 20]
    assert (tmp_path / "log").read_text().count("hello") == 2  # a resumed run appends


def test_threads_are_those_of_the_process(tmp_path, prints) -> None:
    prints("import os; print(os.environ['OMP_NUM_THREADS'])")
    run_in(tmp_path, threads=3).run(tmp_path / "log")
    assert (tmp_path / "log").read_text() == "3\n"


@pytest.mark.parametrize("on_record", [None, print])
def test_log_that_cannot_be_written_is_named(tmp_path, monkeypatch, on_record) -> None:
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(launch, "_run_and_listen", fail)
    monkeypatch.setattr(launch.subprocess, "run", fail)
    with pytest.raises(OSError) as failed:
        run_in(tmp_path, cpu=True).run(tmp_path / "train.log", on_record)
    assert failed.value.filename == str(tmp_path / "train.log")


@pytest.mark.parametrize(
    "path", ["/a,b", "/[x]", "/{a: b}", "/a b=c", "/it's", '/"q"', "/ä 声", "/$x", "/a\\b", "/(1)", "/#~"]
)
def test_override_reaches_hydra_as_it_is(path: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(override("task.data", Path(path)))
    value = parsed.value()
    assert parsed.key_or_group == "task.data" and getattr(value, "text", value) == path


def test_override_without_special_characters_is_not_quoted() -> None:
    assert override("task.data", Path("/x/y-1_2.3")) == "task.data=/x/y-1_2.3"


@pytest.mark.parametrize("path", ["/${env:HOME}", "/a\\", "/a\\'b", "/a\nb", "/a\udcff"])
def test_override_that_hydra_cannot_take_is_an_error(path: str) -> None:
    with pytest.raises(InputError, match="for checkpoint.save_dir of the configuration; expected no"):
        override("checkpoint.save_dir", path)
