"""The fine-tuning run of a fold."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridle_fairseq.training.finetuning import FINETUNING_CONFIGS, FineTuningRun
from bridle_fairseq.training.launch import TrainingRun
from bridle_fairseq.utils.errors import InputError


def run_in(folder: Path) -> FineTuningRun:
    given = ["optimization.max_update=3", "optimization.lr=[0.1]"]
    return FineTuningRun("/c.pt", folder / "data", folder, FINETUNING_CONFIGS, "tiny", given)


def test_user_overrides_come_last(tmp_path) -> None:
    command = run_in(tmp_path).training.command()
    assert command[0].endswith("fairseq-hydra-train")
    assert command[-2:] == ["optimization.max_update=3", "optimization.lr=[0.1]"]
    assert {f"task.data={tmp_path / 'data'}", "model.checkpoint=/c.pt"} <= set(command)
    assert (FINETUNING_CONFIGS / "tiny.yaml").is_file()


def test_failure_is_reported_with_its_last_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(TrainingRun, "command", lambda self: ["sh", "-c", "echo; echo no data >&2; exit 2"])
    with pytest.raises(InputError, match="fine-tuning failed: no data .*train.log"):
        run_in(tmp_path).train()
    monkeypatch.setattr(TrainingRun, "command", lambda self: ["true"])
    with pytest.raises(InputError, match="checkpoint_best.pt: fine-tuning ended without it"):
        run_in(tmp_path).train()
