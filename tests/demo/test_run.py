"""The folder of a demo: which one is resumed, and which is refused."""

from __future__ import annotations

import json

import pytest

from bridle_fairseq.demo.run import Demo, DemoSettings
from bridle_fairseq.utils.errors import InputError

SETTINGS = DemoSettings("audio", None, None, 30, 10, 1)


def test_folder_is_taken_and_resumed(tmp_path) -> None:
    Demo(str(tmp_path / "a,b [c]"), SETTINGS)
    path = tmp_path / "a,b [c]" / "demo.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "seconds": {"media": 2.5}}))
    assert Demo(str(path.parent), SETTINGS).seconds == {"media": 2.5}


@pytest.mark.parametrize("text", ["", '{"settings": {', "[]", '{"settings": 1, "seconds": {}}', '{"settings": {}}'])
def test_damaged_settings_are_one_sentence(tmp_path, text: str) -> None:
    (tmp_path / "demo.json").write_text(text)
    with pytest.raises(InputError, match=r"demo\.json: cannot read the settings of this demo"):
        Demo(str(tmp_path), SETTINGS)
    assert (tmp_path / "demo.json").read_text() == text


def test_folder_that_training_could_not_use_is_refused_at_once(tmp_path) -> None:
    with pytest.raises(InputError, match=r"\$\{"):
        Demo(str(tmp_path / "${env:HOME}"), SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_folder_of_something_else_is_refused(tmp_path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="holds something that is no demo"):
        Demo(str(tmp_path), SETTINGS)
