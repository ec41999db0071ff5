"""What the console shows of a run's configuration and model."""

import io
import logging

import pytest
from omegaconf import OmegaConf
from torch import nn

from bridle_fairseq.tasks.console import TRAINING, shorten_console, summary


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.norm, self.head = nn.Linear(1000, 999), nn.Identity(), nn.Linear(100, 99)


@pytest.fixture
def root(monkeypatch):
    """The root logger with a console only, and the text that it shows."""
    console = logging.StreamHandler(io.StringIO())
    console.setFormatter(logging.Formatter("%(name)s - %(message)s"))
    monkeypatch.setattr(logging.root, "handlers", [console])
    monkeypatch.setattr(logging.root, "level", logging.INFO)
    logger = logging.getLogger(TRAINING)
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(logger, "level", logging.INFO)
    monkeypatch.setattr(logger, "disabled", False)  # as a configuration of logging in another test leaves it
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "_cache", {})
    shorten_console()
    return logger


def shown():
    return logging.root.handlers[0].stream.getvalue()


def test_console_is_short_and_the_file_is_full(root, tmp_path):
    file = logging.FileHandler(tmp_path / "hydra_train.log")
    logging.root.handlers.append(file)
    model, cfg = Model(), OmegaConf.create({"common": {"seed": 1}})
    for message in (cfg, model, "training"):
        root.info(message)
    lines = shown().splitlines()
    assert len(lines) == 3 and all(line.startswith(f"{TRAINING} - ") for line in lines)
    assert "configuration (in full: " in lines[0] and "hydra_train.log)" in lines[1] and lines[2].endswith("training")
    assert "Model, 1.0 M parameters: encoder 1 M, head 0.01 M" in lines[1]
    file.close()
    assert (tmp_path / "hydra_train.log").read_text() == f"{cfg}\n{model}\ntraining\n"


def test_nothing_is_lost_without_a_file(root):
    model = Model()
    root.info(model)
    assert shown() == f"{TRAINING} - {model}\n"


def test_summary_names_parts_with_parameters():
    assert "norm" not in summary(Model())
