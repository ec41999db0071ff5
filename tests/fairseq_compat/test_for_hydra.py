"""Sentences for mistakes in a configuration. Their way through the command: tests/integration/test_mistakes.py."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_compat.for_errors import explain
from fairseq_compat.for_hydra import explain_mistake


def mistake(cfg, key):
    with pytest.raises(OmegaConfBaseException) as raised:
        OmegaConf.select(cfg, key, throw_on_missing=True)
        cfg.task[key.rpartition(".")[2]]
    return raised.value


@pytest.fixture
def cfg():
    cfg = OmegaConf.create({"task": {"data": "${env:NO_SUCH_VARIABLE}", "modality": "audio"}})
    OmegaConf.set_struct(cfg, True)
    return cfg


def test_unknown_key_has_the_nearest_of_its_own_group(cfg):
    assert "task.modalty: no such key; did you mean task.modality?" in explain_mistake(mistake(cfg, "task.modalty"))
    sentence = explain_mistake(mistake(cfg, "task.zzz"))
    assert "expected one of data, modality" in sentence and "+task.zzz=" in sentence


def test_missing_variable_is_named(cfg, monkeypatch):
    monkeypatch.setattr("sys.argv", ["fairseq-hydra-train", "task.data=${env:NO_SUCH_VARIABLE}"])
    error = mistake(cfg, "task.data")
    expected = "task.data=${env:NO_SUCH_VARIABLE}: there is no environment variable NO_SUCH_VARIABLE"
    assert explain_mistake(error) == expected
    assert explain(error) == (expected, 2)


def test_full_error_keeps_the_traceback(cfg, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert explain_mistake(mistake(cfg, "task.modalty")) == ""


@pytest.mark.parametrize("error", [KeyError("x"), AssertionError("Could not infer task type"), FileNotFoundError("x")])
def test_other_errors_have_no_sentence(error):
    assert explain_mistake(error) == ""
