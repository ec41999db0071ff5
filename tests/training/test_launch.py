"""What a fine-tuning run of a fold is started with, and the checkpoint from which training from scratch begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.training import launch as finetuning_run
from bridle_fairseq.utils.errors import InputError

SMALL = dict(encoder_width=16, encoder_depth=1, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)


def run_in(folder: Path) -> finetuning_run.FineTuningRun:
    given = ["optimization.max_update=3", "optimization.lr=[0.1]"]
    return finetuning_run.FineTuningRun(
        "/c.pt", folder / "data", folder, finetuning_run.FINETUNING_CONFIGS, "tiny", given
    )


def test_overrides_of_the_user_come_last(tmp_path) -> None:
    command = run_in(tmp_path).command()
    assert command[0].endswith("fairseq-hydra-train")
    assert command[-2:] == ["optimization.max_update=3", "optimization.lr=[0.1]"]
    assert {f"task.data={tmp_path / 'data'}", "model.checkpoint=/c.pt"} <= set(command)
    assert (finetuning_run.FINETUNING_CONFIGS / "tiny.yaml").is_file()


def test_why_training_failed_is_passed_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        finetuning_run.FineTuningRun, "command", lambda self: ["sh", "-c", "echo; echo no data >&2; exit 2"]
    )
    with pytest.raises(InputError, match="fine-tuning failed: no data .*train.log"):
        run_in(tmp_path).train()
    monkeypatch.setattr(finetuning_run.FineTuningRun, "command", lambda self: ["true"])
    with pytest.raises(InputError, match="checkpoint_best.pt: fine-tuning ended without it"):
        run_in(tmp_path).train()


def test_an_untrained_checkpoint_has_the_settings_and_other_weights(tmp_path, monkeypatch) -> None:
    model = Bridle(BridleSettings(**SMALL))
    torch.save({"cfg": {"model": 3}, "model": model.state_dict()}, tmp_path / "trained.pt")
    monkeypatch.setattr("bridle_fairseq.models.checkpoints.load_model", lambda path: (model, None))
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = finetuning_run.write_untrained(str(tmp_path / "trained.pt"), tmp_path / f"{name}.pt", seed)
        states.append(torch.load(path, weights_only=False))
    assert all(state["cfg"] == {"model": 3} for state in states)
    weights = [state["model"]["encoder.patch_embed.weight"] for state in states]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], model.encoder.patch_embed.weight)
