"""Configurations by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridle_fairseq.training.configs import EXAMPLES, Config, compose, config_names, find_config
from bridle_fairseq.utils.errors import InputError


@pytest.mark.parametrize(
    ("name", "folder", "stem"),
    [
        ("audio/small", "audio/config/pretraining", "small"),
        ("audio/tiny", "audio/config/pretraining", "tiny"),
        ("audio/finetuning/tiny", "audio/config/finetuning", "tiny"),
        ("audio/esc50", "audio/config/finetuning", "esc50"),
        ("image/tiny", "images/config/pretraining", "tiny"),
        ("videos/finetuning/tiny", "video/config/finetuning", "tiny"),
        ("speech/tiny", "speech/config/finetuning", "tiny"),
        ("units/mel_decoder", "units/config", "mel_decoder"),
    ],
)
def test_names_of_configurations(name: str, folder: str, stem: str) -> None:
    assert find_config(name) == Config(EXAMPLES / folder, stem)


def test_every_name_is_that_of_a_file() -> None:
    names = config_names()
    assert {"audio/small", "audio/finetuning/esc50", "video/base", "units/language_model"} <= set(names)
    assert not [name for name in names if "variant" in name or "/probe/" in name]
    for name in names:
        config = find_config(name)
        assert (config.folder / f"{config.name}.yaml").is_file()


@pytest.mark.parametrize(
    "name", ["audio/smal", "audio/pretraining/esc50", "audio", "small", "audio/config/x/tiny", "/"]
)
def test_an_unknown_name_is_one_sentence_with_the_nearest(name: str) -> None:
    with pytest.raises(InputError, match=f"no configuration '{name}'; expected one of .*/.*, or a file"):
        find_config(name)


def test_a_file_is_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("# @package _group_\n")
    monkeypatch.chdir(tmp_path)
    assert find_config("mine.yaml") == Config(tmp_path, "mine")
    with pytest.raises(InputError, match=r"none.yaml: no such file; expected a configuration, \*.yaml"):
        find_config("none.yaml")


def test_configurations_are_composed_with_overrides() -> None:
    for size in ("tiny", "base", "tiny"):  # nothing of one is left in the next
        cfg = compose(find_config(f"audio/{size}"), ["task.data=/x", "dataset.batch_size=7"])
        assert (cfg.task.data, cfg.dataset.batch_size) == ("/x", 7)
        assert cfg.optimization.max_update == 0 and cfg.model.stages
