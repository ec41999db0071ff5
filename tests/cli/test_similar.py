"""``bridle similar``: features and codes, rows and files, invalid input."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bridle_fairseq.cli import main as bridle


@pytest.fixture(scope="module")
def indexed(checkpoint, write_corpus, tmp_path_factory):
    """A folder with valid.tsv, clips of which 0 and 3 sound alike, features/ and codes/."""
    folder = tmp_path_factory.mktemp("indexed")
    manifest = write_corpus(folder, [16000, 12000, 9000, 16000, 20000])
    time = np.arange(16000) / 16000
    for number, hz in ((0, 400), (3, 401)):
        soundfile.write(folder / f"clip {number}.wav", 0.3 * np.sin(2 * np.pi * hz * time), 16000)
    options = ["--workers", "1", "--device", "cpu"]
    for command, more in (("features", ["--layers", "all", "--pooling", "mean", "frequency"]), ("tokenize", [])):
        out = folder / command
        assert bridle.main([command, checkpoint, manifest, "--out", str(out), *more, *options]) == 0
    return folder


def similar(*arguments, code=0):
    assert bridle.main(["similar", *map(str, arguments), "--workers", "1", "--device", "cpu"]) == code


def found(capsys):
    """What was printed for each query: (similarity, name) of its neighbours."""
    answers = []
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("  "):
            similarity, name = line.split(maxsplit=1)
            answers[-1].append((float(similarity), name))
        else:
            answers.append([])
    return answers


@pytest.mark.parametrize("kind", ["features", "tokenize"])
def test_nearest_clip_of_a_row(indexed, capsys, kind):
    similar(indexed / kind, 0, 3, "--top", 2)
    first, second = found(capsys)
    assert first[0][1] == "row 3" and second[0][1] == "row 0" and len(first) == 2
    similar(indexed / kind, 0, "--top", 2, "--exact")
    assert found(capsys)[0] == first


@pytest.mark.parametrize("kind", ["features", "tokenize"])
def test_file_queries_equal_their_rows(indexed, checkpoint, tmp_path, capsys, kind):
    shutil.copy(indexed / "clip 1.wav", tmp_path / "copy.wav")
    options = ["--manifest", indexed / "valid.tsv", "--checkpoint", checkpoint, "--top", 3]
    similar(indexed / kind, indexed / "clip 1.wav", tmp_path / "copy.wav", *options)
    own, copy = found(capsys)
    assert copy[0] == (1.0, str(indexed / "clip 1.wav"))
    assert own[:2] == copy[1:]
    assert {Path(name).name for _, name in own} < {f"clip {n}.wav" for n in (0, 2, 3, 4)}


def test_order_of_queries(indexed, tmp_path, capsys):
    options = ["--manifest", indexed / "valid.tsv", "--top", 1]
    answers = []
    for query in (indexed / "clip 4.wav", 3, indexed / "clip 1.wav", indexed / "clip 4.wav"):
        similar(indexed / "features", query, *options)
        answers += found(capsys)
    similar(indexed / "features", indexed / "clip 4.wav", 3, indexed / "clip 1.wav", indexed / "clip 4.wav", *options)
    assert found(capsys) == answers and answers[0] == answers[3] != answers[1]


def test_choice_of_array(indexed, capsys):
    answers = []
    for name in ("mean.layer1", "frequency.layer1"):
        similar(indexed / "features", 0, "--array", name)
        answers.append(found(capsys))
    assert answers[0] != answers[1]


def test_several_indices_in_one_folder(indexed, tmp_path, capsys):
    for file in (indexed / "tokenize").iterdir():
        shutil.copy(file, tmp_path)
        shutil.copy(file, tmp_path / file.name.replace("valid", "train"))
    similar(tmp_path, 0, code=2)
    assert "2 indices" in capsys.readouterr().err
    similar(tmp_path / "valid.codes", 0)
    similar(tmp_path / "train.codes.json", 0)


MISTAKES = {
    "no index": (["{tmp}", "0"], "0 indices (none)"),
    "no folder": (["{tmp}/none", "0"], "none: no such folder"),
    "no such row": (["{codes}", "5"], "row 5 of"),
    "no checkpoint for a file": (["{codes}", "{tmp}/sound.wav"], "sound.wav: not a row of the index"),
    "another one": (["{codes}", "{tmp}/sound.wav", "--checkpoint", "{tmp}/other.pt"], "codes of another checkpoint"),
    "no sound": (["{codes}", "{tmp}/junk.wav", "--checkpoint", "{ckpt}"], "junk.wav: "),
    "no file": (["{features}", "{tmp}/none.wav", "--checkpoint", "{ckpt}"], "none.wav: "),
    "another manifest": (["{codes}", "0", "--manifest", "{tmp}/other.tsv"], "codes of another manifest"),
    "an array of codes": (["{codes}", "0", "--array", "mean"], "--array mean with codes"),
    "no such array": (["{features}", "0", "--array", "mean.layer9"], "no pooled features mean.layer9"),
    "nothing wanted": (["{codes}", "0", "--top", "0"], "--top is 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_and_exit_code_2(indexed, checkpoint, save_checkpoint, tmp_path, capsys, name):
    soundfile.write(tmp_path / "sound.wav", np.zeros(9000), 16000)
    (tmp_path / "junk.wav").write_bytes(b"RIFF, but no more")
    (tmp_path / "other.tsv").write_text("\nsound.wav\t9000\n")
    (tmp_path / "other.pt").write_bytes(b"another")
    arguments, sentence = MISTAKES[name]
    places = {"tmp": tmp_path, "codes": indexed / "tokenize", "features": indexed / "features", "ckpt": checkpoint}
    similar(*(text.format(**places) for text in arguments), code=2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("bridle: error: ") and sentence in error


def test_first_unusable_query_is_named(indexed, checkpoint, tmp_path, capsys):
    for name in ("first.wav", "second.wav"):
        soundfile.write(tmp_path / name, np.full(9000, np.nan), 16000, subtype="FLOAT")
    files = [tmp_path / "first.wav", tmp_path / "second.wav"]
    similar(indexed / "features", *files, "--checkpoint", checkpoint, code=2)
    error = capsys.readouterr().err
    assert "first.wav: " in error and "second.wav: " not in error


def test_unreadable_row_is_refused_as_query(checkpoint, write_corpus, tmp_path, capsys):
    manifest = write_corpus(tmp_path, [9000, 9000, 9000])
    (tmp_path / "clip 1.wav").write_bytes(b"RIFF, but no more")
    options = ["--out", tmp_path / "out", "--workers", "1", "--device", "cpu", "--max-skipped", "0.5"]
    assert bridle.main(["features", checkpoint, manifest, *map(str, options)]) == 0
    similar(tmp_path / "out", 1, code=2)
    assert "1: this row of" in capsys.readouterr().err
    similar(tmp_path / "out", 0)
    assert [name for _, name in found(capsys)[0]] == ["row 2"]
