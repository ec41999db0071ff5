"""The scripts in manifests/, on small copies of the data sets' layouts."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest

SCRIPTS = Path(__file__).parents[2] / "manifests"


@pytest.fixture
def sounds(tmp_path):
    """Write audio files with these names below tmp_path / "in"."""

    def make(*names):
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.zeros(200), 16000)
        return tmp_path / "in"

    return make


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a script from its command line; returns the exit code. It writes to tmp_path / "out"."""

    def script(name, *arguments):
        monkeypatch.syspath_prepend(SCRIPTS)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments), "--dest", str(tmp_path / "out")])
        spec = importlib.util.spec_from_file_location("__main__", SCRIPTS / f"{name}.py")
        with pytest.raises(SystemExit) as end:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return end.value.code

    return script


def labelled(folder, split):
    """File name to class names of a split."""
    classes = Classes.read(folder / "labels.csv")
    manifest = Manifest.read(folder / f"{split}.tsv")
    labels = Labels.read(folder / f"{split}.lbl", manifest, classes)
    return {name: [classes.names[number] for number in labels[row]] for row, (name, _) in enumerate(manifest)}


def test_esc50(sounds, run, tmp_path):
    source = sounds(*(f"audio/{fold}-100-A-{target}.wav" for fold in range(1, 6) for target in (0, 7)))
    (source / "meta").mkdir()
    lines = [f"{f}-100-A-{t}.wav,{f},{t},{'dog' if t == 0 else 'sea'},True,100,A" for f in range(1, 6) for t in (0, 7)]
    (source / "meta" / "esc50.csv").write_text("\n".join(["filename,fold,target,category,esc10,src_file,take", *lines]))
    assert run("esc50", source) == 0
    for fold in range(1, 6):
        train, valid, test = (labelled(tmp_path / "out" / f"fold{fold}", part) for part in ("train", "valid", "test"))
        assert test == {f"{fold}-100-A-0.wav": ["dog"], f"{fold}-100-A-7.wav": ["sea"]}
        assert sorted(valid.values()) == [["dog"], ["sea"]] and len(train) == 6
        assert len({**train, **valid, **test}) == 10
    assert len(labelled(tmp_path / "out", "train")) == 8
    assert run("esc50", tmp_path / "none") == 2


def test_speech_commands(sounds, run, tmp_path):
    source = sounds(
        *(f"{word}/{n}_nohash_0.wav" for word in ("yes", "no") for n in range(3)), "_background_noise_/x.wav"
    )
    (source / "validation_list.txt").write_text("yes/1_nohash_0.wav\n")
    (source / "testing_list.txt").write_text("no/2_nohash_0.wav\nyes/2_nohash_0.wav\n")
    assert run("speech_commands", source) == 0
    assert labelled(tmp_path / "out", "valid") == {"yes/1_nohash_0.wav": ["yes"]}
    assert labelled(tmp_path / "out", "test") == {"no/2_nohash_0.wav": ["no"], "yes/2_nohash_0.wav": ["yes"]}
    assert sorted(labelled(tmp_path / "out", "train")) == [f"{w}_nohash_0.wav" for w in ("no/0", "no/1", "yes/0")]
    (source / "testing_list.txt").unlink()
    assert run("speech_commands", source) == 2


def test_audioset(sounds, run, tmp_path):
    source = sounds(
        "-a1.wav", "train/Yb2.flac", "c3_30.wav", "d4_30000_40000.wav", "e5_30.000.wav", "e5_70.000.wav", "z.wav"
    )
    (tmp_path / "classes.csv").write_text('index,mid,display_name\n0,/m/1,Speech\n1,/m/2,"Dog, small"\n')
    lines = [f'{name}, 30.000, 40.000, "/m/1,/m/2"' for name in ("-a1", "b2", "c3", "d4", "not here")]
    (tmp_path / "train.csv").write_text("\n".join(["# Segments csv", *lines]))
    (tmp_path / "eval.csv").write_text('e5, 70.000, 80.000, "/m/2"\n')
    arguments = [
        "--classes",
        tmp_path / "classes.csv",
        "--train",
        tmp_path / "train.csv",
        "--valid",
        tmp_path / "eval.csv",
    ]
    assert run("audioset", source, *arguments) == 0
    train = labelled(tmp_path / "out", "train")
    assert sorted(train) == ["-a1.wav", "c3_30.wav", "d4_30000_40000.wav", "train/Yb2.flac"]
    assert all(classes == ["Speech", "Dog, small"] for classes in train.values())
    assert labelled(tmp_path / "out", "valid") == {"e5_70.000.wav": ["Dog, small"]}
    assert run("audioset", source, *arguments[:-2], "--valid", tmp_path / "train.csv", "--test", arguments[-1]) == 0
    assert labelled(tmp_path / "out", "test") == {"e5_70.000.wav": ["Dog, small"]}
    (tmp_path / "eval.csv").write_text('e5, 70.000, 80.000, "/m/9"\n')
    assert run("audioset", source, *arguments) == 2


def test_imagefolder(run, tmp_path):
    source = tmp_path / "imagenet"
    for name in ("train/n01/a.JPEG", "train/n02/b.JPEG", "train/n02/c.png", "val/n01/d.JPEG"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7)).save(source / name)
    (source / "train/n02/no image.jpg").write_text("text")
    (tmp_path / "names.txt").write_text("n01 tench, Tinca tinca\nn02 goldfish\n")
    assert run("imagefolder", source, "--names", tmp_path / "names.txt") == 0
    train = labelled(tmp_path / "out", "train")
    assert train == {
        "train/n01/a.JPEG": ["tench, Tinca tinca"],
        "train/n02/b.JPEG": ["goldfish"],
        "train/n02/c.png": ["goldfish"],
    }
    assert labelled(tmp_path / "out", "valid") == {"val/n01/d.JPEG": ["tench, Tinca tinca"]}
    assert set(Manifest.read(tmp_path / "out" / "train.tsv").sizes) == {1}
    assert "not readable as an image" in (tmp_path / "out" / "skipped.tsv").read_text()
    (tmp_path / "names.txt").write_text("n01 tench\n")
    assert run("imagefolder", source, "--names", tmp_path / "names.txt") == 2


def test_transcripts(sounds, run, tmp_path, capsys):
    source = sounds("train-clean-100/1/2/1-2-0.flac", "dev-other/3/4/3-4-0.flac")
    (source / "train-clean-100/1/2/1-2.trans.txt").write_text("1-2-0 AB A\n")
    (source / "dev-other/3/4/3-4.trans.txt").write_text("3-4-0 B\n")
    splits = ("--split", "train=train-clean-100", "--split", "valid=dev-other")
    assert run("transcripts", source, *splits) == 0
    assert (tmp_path / "out" / "train.ltr").read_text() == "A B | A |\n"
    assert (tmp_path / "out" / "valid.wrd").read_text() == "B\n"
    assert list(Manifest.read(tmp_path / "out" / "valid.tsv")) == [("dev-other/3/4/3-4-0.flac", 200)]
    assert run("transcripts", source, "--split", "train") == 2
    (source / "dev-other/3/4/3-4.trans.txt").write_bytes(b"3-4-0 B\n3-4-1 \xe7\n")
    capsys.readouterr()
    assert run("transcripts", source, *splits) == 2
    assert "3-4.trans.txt, line 2: b'3-4-1 \\xe7\\n' is not UTF-8" in capsys.readouterr().err


def test_sample_manifest_is_readable():
    manifest = Manifest.read(SCRIPTS / "sample" / "train.tsv")
    classes = Classes.read(SCRIPTS / "sample" / "labels.csv")
    labels = Labels.read(SCRIPTS / "sample" / "train.lbl", manifest, classes)
    assert manifest.path(0) == str(SCRIPTS / "sample" / "sounds" / "dog" / "bark one.flac")
    assert manifest.path(3).endswith("sounds/birds.zip:128:90244")
    assert [classes.names[number] for number in labels[3]] == ["Rain, on a roof", "Bird"]
