"""The scripts of examples/units: what the integration test of its README does not reach."""

import dataclasses
import importlib.util
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from bridle_fairseq.data.artifacts.codes import CodesInfo, write_info
from bridle_fairseq.data.artifacts.indexed import write_index
from bridle_fairseq.units.info import UnitsInfo
from bridle_fairseq.units.scheme import to_characters

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
        # at the start: no end; after one unit: level 2; after a time step (2 levels x 3 patches): the end is allowed
        ("all", {0: {1, 3}, 1: {2, 4}, 2: {1, 3}, 6: {0, 1, 3}, 7: {2, 4}}),
        ("2", {0: {2, 4}, 1: {2, 4}, 2: {2, 4}, 3: {0, 2, 4}, 4: {2, 4}}),
    ],
)
def test_grammar_keeps_levels_in_order(level, allowed):
    info = UnitsInfo(CODES, 1, level, "interleaved", "text", False)
    texts = ["", text(4), text(5), text(1, 9), text(9, 0)] if level == "all" else ["", "", text(5), "", text(9, 6)]
    grammar = script("language_model").Grammar(texts, info, end=0)
    for position, tokens in allowed.items():
        (forbidden,) = grammar.forbidden(torch.tensor([position]))
        assert set(torch.nonzero(~forbidden).flatten().tolist()) == tokens
    assert grammar.lengths.tolist() == [len(units) for units in texts]


def hear(monkeypatch, folder, decoder_of, *arguments, log_mel=None, **replaced):
    """Exit code of ``hear.py sound`` with a decoder for codes of the checkpoint ``decoder_of``."""
    module = script("hear")
    codes = np.zeros((2, 6, 2), "<u2")
    (folder / "test.codes.bin").write_bytes(codes.tobytes())
    write_index(f"{folder}/test.codes", [12, 12], np.uint16)
    write_info(folder / "test.codes", dataclasses.replace(CODES, manifest_sha256="b" * 64))
    model = SimpleNamespace(checkpoint_sha256=decoder_of, front_end=SimpleNamespace(log_mel=log_mel))
    for name, value in replaced.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "load_model", lambda *_: (model, None))
    command = ["hear.py", "sound", "decoder.pt", f"{folder}/test.codes", "--out", f"{folder}/heard", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    return module.main()


def test_codes_of_another_checkpoint_are_rejected(monkeypatch, tmp_path, capsys):
    assert hear(monkeypatch, tmp_path, "c" * 64) == 2
    error = capsys.readouterr().err
    assert "codes of another checkpoint (sha256 aaaaaaaaaaaa); expected those of cccccccccccc" in error


def test_missing_rows_are_rejected(monkeypatch, tmp_path, capsys):
    assert hear(monkeypatch, tmp_path, "a" * 64, "--rows", "2") == 2
    assert "--rows has 2; expected rows with codes from 0 to 1" in capsys.readouterr().err


def write_units(folder, rows, split="train", **changes):
    """Write text units of a split, one line per row; returns the path of their description."""
    from bridle_fairseq.units.info import write_units_info

    folder.mkdir(exist_ok=True)
    codes = dataclasses.replace(CODES, **changes)
    write_units_info(folder / f"{split}.units", UnitsInfo(codes, len(rows), "all", "interleaved", "text", False))
    (folder / f"{split}.txt").write_text("".join(text(*row) + "\n" for row in rows))
    return str(folder / f"{split}.units")


@pytest.fixture
def pieces(monkeypatch):
    """Run pieces.py from its command line; returns the exit code."""
    pytest.importorskip("sentencepiece")
    module = script("pieces")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pieces.py", *map(str, arguments)])
        return module.main()

    return run


def test_units_of_another_checkpoint_are_rejected(pieces, tmp_path, capsys):
    own = write_units(tmp_path / "own", [[0, 5, 0, 5], [1, 6]])
    other = write_units(tmp_path / "other", [[0, 5]], checkpoint_sha256="c" * 64)
    folder, model = tmp_path / "pieces", tmp_path / "pieces/12.model"
    assert pieces("train", own, "--vocab-size", 12, "--out", folder) == 0
    assert pieces("encode", model, own, "--out", folder) == 0
    capsys.readouterr()
    (tmp_path / "other.tsv").write_text("\na.wav\t9000\n")
    for command in (
        ["encode", model, own, other, "--out", tmp_path / "out"],
        ["decode", model, folder / "train.pieces", "--like", other, "--out", tmp_path / "out"],
    ):
        assert pieces(*command) == 2
        assert "checkpoint_sha256 cccccccccccc; expected aaaaaaaaaaaa as in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_decode_rejects_pieces_that_do_not_match_the_units(pieces, tmp_path, capsys):
    own = write_units(tmp_path / "own", [[0, 5, 0, 5], [1, 6]])
    folder, model = tmp_path / "pieces", tmp_path / "pieces/12.model"
    assert pieces("train", own, "--vocab-size", 12, "--out", folder) == 0
    assert pieces("encode", model, own, "--out", folder) == 0
    decode = ["decode", model, folder / "train.pieces", "--like", own, "--out"]
    assert pieces(*decode, tmp_path / "again") == 0
    assert (tmp_path / "again/train.txt").read_bytes() == (tmp_path / "own/train.txt").read_bytes()
    assert pieces(*decode, tmp_path / "own") == 2
    assert "where the units of --like are" in capsys.readouterr().err
    lines = (folder / "train.pieces").read_text()
    for change, sentence in ((lines + "1\n", "3 lines; expected 2"), ("99\n1\n", "line 1: not pieces of")):
        (folder / "train.pieces").write_text(change)
        assert pieces(*decode, tmp_path / "out") == 2
        assert sentence in capsys.readouterr().err
        assert not (tmp_path / "out/train.txt").exists()
    (folder / "train.pieces").unlink()
    assert pieces(*decode, tmp_path / "out") == 2
    assert "train.pieces: cannot read these lines" in capsys.readouterr().err


def test_report_equals_a_count_by_hand(pieces, tmp_path, capsys):
    from bridle_fairseq.data.manifests.manifest import Manifest

    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 8000)
    manifest = Manifest(tmp_path, ["a.wav"], [16000])
    manifest.write(tmp_path / "valid.tsv")
    own = write_units(tmp_path / "own", [[0, 5, 0, 5, 0, 5, 0, 5]])
    measured = {"split": "valid", "manifest_sha256": manifest.fingerprint()}
    valid = write_units(tmp_path / "own", [[0, 5, 0, 5, 1, 6]], **measured)
    assert pieces("train", own, "--vocab-size", 12, "--out", tmp_path) == 0
    capsys.readouterr()
    report = ["report", own, valid, tmp_path / "12.model", "--manifest", tmp_path / "valid.tsv"]
    assert pieces(*report) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    shares = np.array([2, 2, 1, 1]) / 6  # 2 s
    coded = -(4 * np.log2(5 / 18) + 2 * np.log2(1 / 18)) / 2
    assert table[0] == ["10", "3.0", "1.000", f"{-3 * (shares * np.log2(shares)).sum():.1f}", f"{coded:.1f}"]
    assert float(table[1][1]) < 3
    other = write_units(tmp_path / "other", [[0, 5]], checkpoint_sha256="c" * 64)
    assert pieces("report", other, *report[2:]) == 2
    assert "checkpoint_sha256 aaaaaaaaaaaa; expected cccccccccccc" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/rq/decoder/best.pt", "/a/vq/decoder/best.pt"], ["rq", "vq"]),
        (["/a/best.pt", "/a/b/best.pt"], ["best.pt", "b"]),
        (["/a/one.pt", "two.pt"], None),
        (["/a/one.pt"], ["one.pt"]),
    ],
)
def test_plot_labels_are_distinct(paths, names):
    short = script("hear").short_names(paths)
    assert short == names if names else len(set(short)) == 2


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: None, ""),
        (lambda folder: (folder / "train.txt").write_text(text(0, 5) + "\n"), "train.txt: 1 lines; expected 2"),
        (lambda folder: (folder / "train.txt").unlink(), "train.txt: cannot read these lines"),
        (lambda folder: (folder / "train.units.json").unlink(), "cannot read this description of units"),
    ],
)
def test_train_rejects_units_that_do_not_match_their_description(pieces, tmp_path, capsys, spoil, sentence):
    units = write_units(tmp_path, [[0, 5, 0, 5], [1, 6]])
    spoil(tmp_path)
    assert pieces("train", units, "--vocab-size", 12, "--out", tmp_path / "pieces") == (2 if sentence else 0)
    assert sentence in capsys.readouterr().err


@pytest.fixture
def full_disk():
    """``full_disk()``: no file of this process can have more than 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_plot_on_a_full_disk_leaves_no_file(tmp_path, full_disk):
    pytest.importorskip("matplotlib")
    full_disk()
    with pytest.raises(OSError, match="plot.png"):
        script("hear").plot({"a.pt": [1.0, 0.5]}, tmp_path / "plot.png")
    assert list(tmp_path.iterdir()) == []


def test_sound_on_a_full_disk_is_one_sentence(monkeypatch, tmp_path, capsys, full_disk):
    def silence(*_):
        full_disk()
        return torch.zeros(1, 4000)

    log_mel = SimpleNamespace(sample_rate=16000)
    assert (
        hear(monkeypatch, tmp_path, "a" * 64, log_mel=log_mel, decode=lambda *_: torch.zeros(1), waveform=silence) == 2
    )
    assert "test.0.levels2.wav: File too large (the limit of a file is 100 bytes" in capsys.readouterr().err
    assert list((tmp_path / "heard").iterdir()) == []


def test_pieces_on_a_full_disk_leave_no_file(pieces, tmp_path, capsys, full_disk):
    units = write_units(tmp_path / "units", [[0, 5, 1, 6, 2, 7] * 20])
    full_disk()
    assert pieces("train", units, "--out", tmp_path / "out", "--vocab-size", "24") == 2
    assert "24.model: File too large" in (error := capsys.readouterr().err) and error.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []
