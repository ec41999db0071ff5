"""The scripts of examples/units, where the page that the integration test follows does not lead."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bridle_fairseq.data.codes import CodesInfo, write_index, write_info
from bridle_fairseq.data.unit_files import UnitsInfo
from bridle_fairseq.data.units import to_characters

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "units"
CODES = CodesInfo(2, 5, {"frequency_patches": 3, "patches_per_segment": 6}, "a" * 64, "b" * 64)


def script(name):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(f"units_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(*units):
    return to_characters(np.array(units))


@pytest.mark.parametrize(
    ("level", "allowed"),
    [
        # after none of the units: no end; after one: level 2 is due; after a time step, 2 x 3 units: the end too
        ("all", {0: {1, 3}, 1: {2, 4}, 2: {1, 3}, 6: {0, 1, 3}, 7: {2, 4}}),
        ("2", {0: {2, 4}, 1: {2, 4}, 2: {2, 4}, 3: {0, 2, 4}, 4: {2, 4}}),
    ],
)
def test_only_what_keeps_the_levels_in_order_may_be_drawn(level, allowed):
    info = UnitsInfo(CODES, 1, level, "interleaved", "text", False)
    texts = ["", text(4), text(5), text(1, 9), text(9, 0)] if level == "all" else ["", "", text(5), "", text(9, 6)]
    grammar = script("language_model").Grammar(texts, info, end=0)
    for position, tokens in allowed.items():
        (forbidden,) = grammar.forbidden(torch.tensor([position]))
        assert set(torch.nonzero(~forbidden).flatten().tolist()) == tokens
    assert grammar.lengths.tolist() == [len(units) for units in texts]


def hear(monkeypatch, folder, decoder_of, *arguments):
    """Exit code of the script's ``sound``, with a decoder of some checkpoint."""
    module = script("hear")
    codes = np.zeros((2, 6, 2), "<u2")
    (folder / "test.codes.bin").write_bytes(codes.tobytes())
    write_index(f"{folder}/test.codes", [12, 12], np.uint16)
    write_info(folder / "test.codes", dataclasses.replace(CODES, manifest_sha256="b" * 64))
    model = SimpleNamespace(checkpoint_sha256=decoder_of, front_end=SimpleNamespace(log_mel=None))
    monkeypatch.setattr(module, "load_model", lambda *_: (model, None))
    command = ["hear.py", "sound", "decoder.pt", f"{folder}/test.codes", "--out", f"{folder}/heard", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    return module.main()


def test_codes_of_another_checkpoint_are_not_decoded(monkeypatch, tmp_path, capsys):
    assert hear(monkeypatch, tmp_path, "c" * 64) == 2
    error = capsys.readouterr().err
    assert "codes of another checkpoint (sha256 aaaaaaaaaaaa); expected those of cccccccccccc" in error


def test_rows_that_are_not_there_are_not_decoded(monkeypatch, tmp_path, capsys):
    assert hear(monkeypatch, tmp_path, "a" * 64, "--rows", "2") == 2
    assert "--rows has 2; expected rows with codes from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: None, ""),
        (lambda folder: (folder / "train.txt").write_text(text(0, 5) + "\n"), "train.txt: 1 lines; expected 2"),
        (lambda folder: (folder / "train.txt").unlink(), "train.txt: cannot read these units"),
        (lambda folder: (folder / "train.units.json").unlink(), "cannot read this description of units"),
    ],
)
def test_units_out_of_step_with_their_description(monkeypatch, tmp_path, capsys, spoil, sentence):
    from bridle_fairseq.data.unit_files import write_units_info

    pytest.importorskip("sentencepiece")
    write_units_info(tmp_path / "train.units", UnitsInfo(CODES, 2, "all", "interleaved", "text", False))
    (tmp_path / "train.txt").write_text(f"{text(0, 5, 0, 5)}\n{text(1, 6)}\n")
    spoil(tmp_path)
    options = ["--vocab-size", "12", "--out", str(tmp_path / "pieces")]
    monkeypatch.setattr(sys, "argv", ["pieces.py", "train", str(tmp_path / "train.units"), *options])
    assert script("pieces").main() == (2 if sentence else 0)
    assert sentence in capsys.readouterr().err
