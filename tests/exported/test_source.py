"""Which export a name stands for: weights of this package, found offline."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from bridle_fairseq import pretrained
from bridle_fairseq.exported import source
from bridle_fairseq.exported.source import OWN_WEIGHTS, find_export, own_weights
from bridle_fairseq.utils.errors import InputError

NAMES = own_weights()
LICENSES = {"bridle-small-audio": "cc-by-4.0", "bridle-small-image": "cc0-1.0"}
LARGEST = 10e6  # bytes; larger weights do not belong into a repository


def test_there_are_weights() -> None:
    assert set(NAMES) == set(LICENSES)


@pytest.mark.parametrize("name", NAMES)
def test_own_weights_are_found_and_compute(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_export(name) == OWN_WEIGHTS / name
    model = pretrained.load(name)
    torch.manual_seed(0)
    if model.settings.modality == "audio":
        inputs, rate = [0.1 * torch.randn(n) for n in (16000, 5000)], 16000
    else:
        inputs, rate = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)], None
    vectors = model.embed(inputs, rate)
    assert vectors.shape == (2, 192) and torch.isfinite(vectors).all() and not torch.allclose(*vectors)
    codes = model.codes(inputs, rate)
    valid = codes.codes if codes.padding_mask is None else codes.codes[~codes.padding_mask]
    assert valid.shape[-1] == 4 and len(valid.flatten().unique()) > 50


@pytest.mark.parametrize("name", NAMES)
def test_cards_of_own_weights_say_what_they_are(name) -> None:
    folder = OWN_WEIGHTS / name
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"---\nlicense: {LICENSES[name]}\n")
    for text in (
        "**Good for**",
        "**Not for**",
        "**Data**",
        "| pretrained | untrained | difference |",
        "rounded to float16",
    ):
        assert text in card
    assert not re.search(r"(^|[\s`(])/\w+/", card), "a path of the machine that made it"
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["parts"] == ["encoder", "tokenizer"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OWN_WEIGHTS / NAMES[0], NAMES[0])
    assert str(find_export(NAMES[0])) == NAMES[0]


def test_an_unknown_name_lists_the_known_ones(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = " or ".join(NAMES)
    with pytest.raises(
        InputError, match=f"^bridle-huge: no such path, and no weights of this package; expected {known}"
    ):
        find_export("bridle-huge")
    monkeypatch.setattr(source, "OWN_WEIGHTS", tmp_path)
    assert own_weights() == []
