"""``bridle units``: formats, the way back to codes, shards, invalid input."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bridle_fairseq.cli import main as bridle
from bridle_fairseq.data.artifacts.codes import CachedCodes, CodesInfo, write_info
from bridle_fairseq.data.artifacts.indexed import write_index
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.units import files as unit_files
from bridle_fairseq.units import sharding

K, C = 3, 16
PATCHES = [4, 0, 30, 1, 12, 7, 0, 25]
LAYOUTS = ("interleaved", "flattened", "separate")
FORMATS = ("km", "text", "fairseq")


def write_corpus(folder, patches=PATCHES, seed=0, split="train", **changes):
    """Codes that repeat now and then, of a manifest that lies beside them; their prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    codes = [random.integers(0, C, (count, K)).repeat(2, 0)[:count].astype("<u2") for count in patches]
    prefix = folder / f"{split}.codes"
    Path(f"{prefix}.bin").write_bytes(b"".join(item.tobytes() for item in codes))
    write_index(str(prefix), [item.size for item in codes], np.uint16)
    manifest = Manifest("", [f"{split} {row}.wav" for row in range(len(patches))], [16000 + seed] * len(patches))
    manifest.write(folder / f"{split}.tsv")
    grid = {"frequency_patches": 2, "patch_frames": 16, "segment_samples": 4000, "patches_per_segment": 4}
    info = CodesInfo(K, C, grid, "a" * 64, manifest.fingerprint())
    write_info(prefix, dataclasses.replace(info, **changes))
    return str(prefix), codes


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "codes")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(sharding, "ROWS_PER_BLOCK", 3)


def units(*arguments, code=0):
    assert bridle.main(["units", *map(str, arguments)]) == code


def contents(folder):
    """The files below a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def one_sentence(capsys):
    error = capsys.readouterr().err.strip()
    assert error.startswith("bridle: error: ") and "\n" not in error
    return error


@pytest.mark.parametrize("dedup", [[], ["--dedup"]], ids=["all", "dedup"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMATS)
def test_round_trip_is_byte_identical(corpus, tmp_path, form, layout, dedup):
    units(corpus[0], "--out", tmp_path / "units", "--format", form, "--layout", layout, *dedup)
    units("--back", tmp_path / "units/train.units", "--out", tmp_path / "again")
    again = contents(tmp_path / "again")
    assert again == {name: data for name, data in contents(tmp_path / "codes").items() if not name.endswith("tsv")}


def test_single_level(corpus, tmp_path, capsys):
    prefix, codes = corpus
    units(prefix, "--out", tmp_path / "units", "--level", 2)
    lines = (tmp_path / "units/train.km").read_text().split("\n")
    assert lines == [" ".join(map(str, item[:, 1])) for item in codes] + [""]
    assert (tmp_path / "units/dict.km.txt").read_text() == "".join(f"{unit} 1\n" for unit in range(C))
    assert "8 clips (2 empty), 79 units of 16" in capsys.readouterr().out
    units("--back", tmp_path / "units/train.units.json", "--out", tmp_path / "again")
    expected = b"".join(item[:, 1].tobytes() for item in codes)
    assert (tmp_path / "again/train.codes.bin").read_bytes() == expected
    assert json.loads((tmp_path / "again/train.codes.json").read_text())["num_codebooks"] == 1


def test_km_is_interleaved_in_time_major_order(corpus, tmp_path):
    prefix, codes = corpus
    units(prefix, "--out", tmp_path)
    first = [int(word) for word in (tmp_path / "train.km").read_text().split("\n")[0].split()]
    assert first == [C * level + int(code) for patch in codes[0] for level, code in enumerate(patch)]
    assert len((tmp_path / "dict.km.txt").read_text().splitlines()) == K * C


def test_deduplication_with_counts(corpus, tmp_path):
    prefix, codes = corpus
    units(prefix, "--out", tmp_path, "--dedup")
    lines, counts = ((tmp_path / f"train.{name}").read_text().split("\n") for name in ("km", "counts"))
    assert counts[0] == "2 2" and len(lines[0].split()) == 2 * K and lines[1] == counts[1] == ""
    assert sum(int(word) for word in counts[2].split()) == len(codes[2])


def test_fairseq_format_equals_fairseq_preprocess(corpus, tmp_path):
    for form in ("km", "fairseq"):
        units(corpus[0], "--out", tmp_path / form, "--format", form)
    options = ["--only-source", "--trainpref", tmp_path / "km/train.km", "--destdir", tmp_path / "bin"]
    command = [Path(sys.executable).with_name("fairseq-preprocess"), *options]
    command += ["--srcdict", tmp_path / "km/dict.km.txt"]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("train.bin", "train.idx", "dict.txt"):
        assert (tmp_path / "fairseq" / name).read_bytes() == (tmp_path / "bin" / name).read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_shards_in_any_order_are_byte_identical(corpus, tmp_path, small_blocks, capsys, form):
    options = ["--layout", "separate", "--format", form, "--dedup"]
    units(corpus[0], "--out", tmp_path / "whole", *options)
    for shard in ("2/3", "0/3"):
        units(corpus[0], "--out", tmp_path / "out", *options, "--shard", shard)
        assert not (tmp_path / "out/train.units.json").exists()
    assert "left to others" in capsys.readouterr().out
    units(corpus[0], "--out", tmp_path / "out", *options, "--shard", "1/3")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    units("--back", tmp_path / "out/train.units", "--out", tmp_path / "again")
    assert (tmp_path / "again/train.codes.bin").read_bytes() == Path(f"{corpus[0]}.bin").read_bytes()


def test_complete_units_are_kept_unless_overwrite(corpus, tmp_path, capsys):
    units(corpus[0], "--out", tmp_path)
    before = os.stat(tmp_path / "train.km").st_mtime_ns
    units(corpus[0], "--out", tmp_path)
    assert "complete already" in capsys.readouterr().out
    assert os.stat(tmp_path / "train.km").st_mtime_ns == before
    units(corpus[0], "--out", tmp_path, "--dedup", code=2)
    assert "units with dedup False are there; expected True" in one_sentence(capsys)
    other, _ = write_corpus(tmp_path / "other", seed=1)
    units(other, "--out", tmp_path, code=2)
    assert "units with manifest_sha256 " in one_sentence(capsys)
    units(corpus[0], "--out", tmp_path, "--dedup", "--overwrite")
    assert (tmp_path / "train.counts").exists()


def test_splits_of_one_folder_share_their_settings(corpus, tmp_path, capsys):
    other, _ = write_corpus(tmp_path / "other", seed=1, split="valid", checkpoint_sha256="b" * 64)
    units(corpus[0], other, "--out", tmp_path / "units", code=2)
    assert "checkpoint_sha256 bbbbbbbbbbbb; expected aaaaaaaaaaaa" in one_sentence(capsys)
    assert not (tmp_path / "units").exists()
    units(corpus[0], "--out", tmp_path / "units")
    units(other, "--out", tmp_path / "units", code=2)
    assert "checkpoint_sha256" in one_sentence(capsys)
    alike, _ = write_corpus(tmp_path / "alike", seed=2, split="valid")
    units(alike, "--out", tmp_path / "units", "--level", 1, code=2)
    assert "level all; expected 1" in one_sentence(capsys)
    units(corpus[0], alike, "--out", tmp_path / "units")
    assert (tmp_path / "units/valid.km").exists()


def test_other_manifest_or_checkpoint_is_refused(corpus, tmp_path, capsys):
    from bridle_fairseq.utils.files import file_sha256

    write_corpus(tmp_path / "other", seed=1)
    (tmp_path / "model.pt").write_bytes(b"a checkpoint")
    units(corpus[0], "--out", tmp_path / "units", "--manifest", tmp_path / "other/train.tsv", code=2)
    assert "codes of another manifest" in one_sentence(capsys)
    units(corpus[0], "--out", tmp_path / "units", "--checkpoint", tmp_path / "model.pt", code=2)
    assert "codes of another checkpoint (sha256 aaaaaaaaaaaa)" in one_sentence(capsys)
    units(corpus[0], "--out", tmp_path / "units", "--checkpoint", tmp_path / "none.pt", code=2)
    assert "none.pt: no such checkpoint" in one_sentence(capsys)
    units(corpus[0], "--out", tmp_path / "units", "--manifest", tmp_path / "codes/train.tsv")
    back = ["--back", tmp_path / "units/train.units", "--out", tmp_path]
    units(*back, "--manifest", tmp_path / "other/train.tsv", code=2)
    assert "units of another manifest" in one_sentence(capsys)
    own, _ = write_corpus(tmp_path / "own", checkpoint_sha256=file_sha256(str(tmp_path / "model.pt")))
    units(own, "--out", tmp_path / "good", "--checkpoint", tmp_path / "model.pt")


def test_other_codes_are_replaced_only_with_overwrite(corpus, tmp_path, capsys, monkeypatch):
    units(corpus[0], "--out", tmp_path / "units", "--level", 2)
    back, before = ["--back", tmp_path / "units/train.units", "--out", tmp_path / "codes"], contents(tmp_path / "codes")
    units(*back, code=2)
    assert "train.codes.json: codes with num_codebooks 3 are there; expected 1, or none" in one_sentence(capsys)
    edited(lambda t: t + "1 2\n")(tmp_path / "units")
    units(*back, "--overwrite", code=2)  # one line too many
    assert contents(tmp_path / "codes") == before
    edited(lambda t: t.removesuffix("1 2\n"))(tmp_path / "units")
    with monkeypatch.context() as patch:
        patch.setattr(unit_files, "write_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        units(*back, "--overwrite", code=130)
    assert (tmp_path / "codes/train.codes.bin").read_bytes() != before["train.codes.bin"]
    assert not (tmp_path / "codes/train.codes.json").exists()
    for _ in range(2):  # what is there is of the same description the second time
        units(*back)
    assert CachedCodes(tmp_path / "codes/train.codes").info.num_codebooks == 1


def edited(change, name="train.km"):
    """A way to spoil a file of units."""

    def spoil(folder):
        path = folder / name
        path.write_text(change(path.read_text()))

    return spoil


SPOILT = {
    "a line is missing": (edited(lambda t: t.split("\n", 1)[1]), "train.km: 7 lines; expected 8, one per row"),
    "a line too many": (edited(lambda t: t + "1 17\n"), "train.km: more than 8 lines; expected 8"),
    "half a patch": (edited(lambda t: "1 " + t), "train.km, line 1: 13 units; expected a multiple of the 3 levels"),
    "no numbers": (edited(lambda t: "x " + t), "train.km, line 1: 'x'; expected whole numbers"),
    "a huge number": (edited(lambda t: "9" * 30 + t), "train.km, line 1: '9999"),
    "unknown units": (edited(lambda t: "48 17 33\n" + t.split("\n", 1)[1]), "line 1: unit 48; expected 0 to 47"),
    "no file": (lambda folder: (folder / "train.km").unlink(), "train.km: cannot read these units"),
    "a count is missing": (edited(lambda t: t[2:], "train.counts"), "line 1: 2 runs of units and 1 counts"),
    "fewer counts": (edited(lambda t: "2 2\n", "train.counts"), "train.counts: not as many lines"),
    "no json": (lambda folder: (folder / "train.units.json").unlink(), "train.units.json: cannot read"),
    "another version": (edited(lambda t: t.rpartition(":")[0] + ": 7}", "train.units.json"), "version 7; expected 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_damaged_units_are_refused_and_leave_no_codes(corpus, tmp_path, capsys, name):
    spoil, sentence = SPOILT[name]
    units(corpus[0], "--out", tmp_path / "units", *["--dedup"] * ("count" in name))
    spoil(tmp_path / "units")
    capsys.readouterr()
    units("--back", tmp_path / "units/train.units", "--out", tmp_path / "again", code=2)
    assert sentence in one_sentence(capsys)
    assert not (tmp_path / "again").exists() or not any((tmp_path / "again").iterdir())


MISTAKES = {
    "no such level": (["{codes}", "--level", "4"], "--level is '4'; expected a number from 1 to 3, or all"),
    "level 0": (["{codes}", "--level", "0"], "--level is '0'"),
    "not codes": (["{tmp}/codes/train.tsv"], "train.tsv: expected files called {split}.codes.json"),
    "no codes": (["{tmp}/none.codes"], "none.codes.json: cannot read this description of codes"),
    "no such shard": (["{codes}", "--shard", "3/3"], "'3/3'; expected I/N"),
    "back in shards": (["{codes}", "--back", "--shard", "0/2"], "--back with --shard 0/2"),
    "a manifest of two": (["{codes}", "{codes}", "--manifest", "x.tsv"], "--manifest with 2 splits"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_and_exit_code_2(corpus, tmp_path, capsys, name):
    arguments, sentence = MISTAKES[name]
    filled = [text.replace("{codes}", corpus[0]).replace("{tmp}", str(tmp_path)) for text in arguments]
    units(*filled, "--out", tmp_path / "out", code=2)
    assert sentence in one_sentence(capsys)
    assert not (tmp_path / "out").exists()


def test_too_many_codes_for_text_format(tmp_path, capsys):
    prefix, _ = write_corpus(tmp_path / "codes", codebook_size=65536)
    units(prefix, "--out", tmp_path / "units", "--format", "text", code=2)
    assert "196608 codes in all; expected at most 131068" in one_sentence(capsys)
