"""``bridle manifest``: folders and archives, labels, splits, invalid input."""

import tarfile
import zipfile

import numpy as np
import pytest
import soundfile
from PIL import Image

from bridle_fairseq.cli.main import main
from bridle_fairseq.data.audio.dataset import AudioDataset
from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest


@pytest.fixture
def sounds(tmp_path):
    """A folder with 10 wav files, a flac file in a subfolder and one that is no sound."""
    (tmp_path / "in" / "more").mkdir(parents=True)
    for number in range(10):
        soundfile.write(tmp_path / "in" / f"clip {number}.wav", np.zeros(100 + number), 8000)
    soundfile.write(tmp_path / "in" / "more" / "x.flac", np.zeros(500), 44100)
    (tmp_path / "in" / "broken.wav").write_bytes(b"junk")
    return tmp_path / "in"


def test_folder(sounds, tmp_path, capsys):
    assert main(["manifest", str(sounds), "--dest", str(tmp_path / "out"), "--valid-percent", "0.2"]) == 0
    train, valid = (Manifest.read(tmp_path / "out" / f"{split}.tsv") for split in ("train", "valid"))
    assert (len(train), len(valid)) == (9, 2) and train.root == valid.root == str(sounds)
    rows = dict([*train, *valid])
    assert rows == {**{f"clip {number}.wav": 100 + number for number in range(10)}, "more/x.flac": 500}
    said = capsys.readouterr()
    assert "9 clips" in said.out and "broken.wav: not readable" in said.err
    assert "broken.wav" in (tmp_path / "out" / "skipped.tsv").read_text()


def test_seed_and_filters(sounds, tmp_path):
    valid = []
    for seed in ("1", "1", "2"):
        arguments = ["--dest", str(tmp_path / "out"), "--valid-percent", "0.3", "--seed", seed]
        assert main(["manifest", str(sounds), *arguments, "--path-must-contain", "clip"]) == 0
        valid.append((tmp_path / "out" / "valid.tsv").read_text())
    assert valid[0] == valid[1] != valid[2] and "x.flac" not in valid[0]
    assert main(["manifest", str(sounds), "--dest", str(tmp_path / "f"), "--ext", "flac", "--valid-percent", "0"]) == 0
    assert list(Manifest.read(tmp_path / "f" / "train.tsv")) == [("more/x.flac", 500)]
    assert not (tmp_path / "f" / "valid.tsv").exists()


def test_stored_archive(sounds, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted(sounds.glob("*.wav")):
            archive.write(path, path.name)
    assert main(["manifest", str(tmp_path / "x.zip"), "--dest", str(tmp_path / "out")]) == 0
    dataset = AudioDataset(Manifest.read(tmp_path / "out" / "train.tsv"), sample_rate=8000)
    assert sorted(len(dataset[row]["source"]) for row in range(len(dataset)))[-1] >= 108


def test_labels_splits_and_folds(sounds, tmp_path):
    lines = [f"clip {number},{'dog' if number % 2 else 'cat'},{number % 3}" for number in range(10)]
    (tmp_path / "t.csv").write_text("\n".join(["what,kind,part", *lines]))
    columns = ["--name-column", "what", "--label-column", "kind", "--fold-column", "part"]
    out = tmp_path / "out"
    assert main(["manifest", str(sounds), "--dest", str(out), "--labels", str(tmp_path / "t.csv"), *columns]) == 0
    classes = Classes.read(out / "labels.csv")
    test = Manifest.read(out / "fold0" / "test.tsv")
    labels = Labels.read(out / "fold0" / "test.lbl", test, classes)
    found = {name: classes.names[labels[row][0]] for row, (name, _) in enumerate(test)}
    assert found == {f"clip {n}.wav": "dog" if n % 2 else "cat" for n in (0, 3, 6, 9)}
    assert len(Manifest.read(out / "train.tsv")) + len(Manifest.read(out / "valid.tsv")) == 10
    others = [name for part in ("train", "valid") for name, _ in Manifest.read(out / "fold0" / f"{part}.tsv")]
    assert sorted(others) == [f"clip {n}.wav" for n in (1, 2, 4, 5, 7, 8)]


def test_label_separator(sounds, tmp_path):
    (tmp_path / "t.csv").write_text("file,tags,split\nclip 0.wav,x;y,train\nclip 1.wav,,valid\n")
    command = ["manifest", str(sounds), "--dest", str(tmp_path / "out"), "--labels", str(tmp_path / "t.csv")]
    assert main([*command, "--label-column", "tags", "--label-separator", ";"]) == 0
    assert (tmp_path / "out" / "train.lbl").read_text() == "x,y\n"
    assert (tmp_path / "out" / "valid.lbl").read_text() == "\n"


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["{in}/none"], "none: no such folder or .zip or .tar archive"),
        (["{in}/more", "--ext", "mp3"], "no file found with extension .mp3"),
        (["{in}", "--modality", "video"], "11 .wav, 1 .flac; did you mean --modality audio?"),
        (
            ["{in}/more", "--class-folders"],
            "more: none of 1 files is in a folder of its class; expected class/x below it",
        ),
        (["{in}", "--valid-percent", "1.5"], "share for validation 1.5"),
        (["{in}/none", "--test-percent", "15"], "share for the test 15.0"),  # before the files are looked at
        (["{in}", "--labels", "{in}/none.csv"], "none.csv: cannot read this csv file: No such file"),
        (["{in}", "--classes", "{in}/none.csv"], "none.csv: cannot read"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(sounds, tmp_path, capsys, arguments, said):
    arguments = [argument.replace("{in}", str(sounds)) for argument in arguments]
    assert main(["manifest", *arguments, "--dest", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("bridle: error: ") and said in lines[-1]
    assert not (tmp_path / "out" / "train.tsv").exists()


def test_compressed_archive_is_refused(sounds, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(sounds / "clip 0.wav", "a.wav")
    assert main(["manifest", str(tmp_path / "x.zip"), "--dest", str(tmp_path / "out")]) == 2
    assert "'a.wav' is compressed" in capsys.readouterr().err


def test_class_folders_of_images(tmp_path, capsys):
    for name in ("train/cat/a.jpg", "train/cat/b.png", "train/dog/c.webp", "train/dog/d.jpg", "test/dog/e.JPG"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "train" / "dog" / "f.jpg").write_bytes(b"")
    (tmp_path / "in" / "train" / "dog" / "g.wav").write_bytes(b"no image")
    command = ["manifest", str(tmp_path / "in"), "--dest", str(tmp_path / "out"), "--modality", "image"]
    assert main([*command, "--class-folders", "--valid-percent", "0.25"]) == 0
    said = capsys.readouterr()
    assert "train.tsv: 2 clips, 2 classes" in said.out and "test.tsv: 1 clips, 1 of 2 classes" in said.out
    assert (tmp_path / "out" / "test.tsv").read_text() == f"{tmp_path / 'in'}\ntest/dog/e.JPG\t1\n"
    assert (tmp_path / "out" / "test.lbl").read_text() == "dog\n"
    assert "f.jpg: empty file" in said.err and "1 of 6 files cannot be read" in said.err
    (tmp_path / "t.csv").write_text("file,label\ne.JPG,dog\n")
    assert main([*command, "--class-folders", "--labels", str(tmp_path / "t.csv")]) == 2
    assert "--class-folders and --labels" in capsys.readouterr().err
    assert main([*command, "--labels", str(tmp_path / "t.csv"), "--valid-percent", "0"]) == 0
    assert (tmp_path / "out" / "train.lbl").read_text() == "dog\n"


def test_files_that_are_not_read_are_counted_and_listed(sounds, tmp_path, capsys):
    """Media by their endings are listed, everything else is counted."""
    for name in ("x.ape", "y.MP4", "notes.txt", "more/cover.jpg"):
        (sounds / name).write_bytes(b"content")
    soundfile.write(sounds / "z.aiff", np.zeros(700), 16000)
    assert main(["manifest", str(sounds), "--dest", str(tmp_path / "out"), "--valid-percent", "0"]) == 0
    said = capsys.readouterr().err
    assert (
        "not read: 1 .ape, 1 .mp4; all of them: " in said and "no sound files by their endings: 1 .jpg, 1 .txt" in said
    )
    listed = (tmp_path / "out" / "skipped.tsv").read_text()
    assert f"{str(sounds / 'x.ape')!r}\tother extension; name it with --ext" in listed and "y.MP4" in listed
    assert "z.aiff\t700" in (tmp_path / "out" / "train.tsv").read_text()


def test_images_that_are_not_read_and_what_macos_adds(tmp_path, capsys):
    """Formats that no option makes readable come with other advice; ._x.jpg is no image, and no damaged one."""
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jfif", "._a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name, format="JPEG")
    (tmp_path / "in" / "c.heic").write_bytes(b"content")
    command = ["manifest", "--modality", "image", str(tmp_path / "in"), "--dest", str(tmp_path / "out")]
    assert main([*command, "--valid-percent", "0"]) == 0
    assert [name for name, _ in Manifest.read(tmp_path / "out" / "train.tsv")] == ["a.jpg", "b.jfif"]
    said = capsys.readouterr().err
    assert "not read: 1 .heic" in said and "no images by their endings: 1 ._*" in said and "left out" not in said
    listed = (tmp_path / "out" / "skipped.tsv").read_text()
    assert listed.endswith("c.heic'\tother extension; no format that is read; convert it, such as to .png\n")


def test_too_many_unreadable_files_are_a_mistake(sounds, tmp_path, capsys):
    for number in range(4):
        (sounds / f"clip {number}.wav").unlink()
        (sounds / f"bad {number}.wav").write_bytes(b"RIFF")
    command = ["manifest", str(sounds), "--dest", str(tmp_path / "out")]
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "5 files cannot be read, more than the 3 allowed" in said and "--max-skipped" in said
    assert main([*command, "--max-skipped", "0.5"]) == 0


def test_shards_with_classes(sounds, tmp_path):
    """A folder of WebDataset shards to the rows that training reads."""
    (tmp_path / "shards").mkdir()
    for number in range(3):
        with tarfile.open(tmp_path / "shards" / f"{number}.tar", "w") as archive:
            for clip in range(3):
                archive.add(sounds / f"clip {3 * number + clip}.wav", f"{clip}.wav")
                (tmp_path / "label").write_text(str(clip))
                archive.add(tmp_path / "label", f"{clip}.cls")
    command = ["manifest", str(tmp_path / "shards"), "--dest", str(tmp_path / "out"), "--label-member", "cls"]
    assert main([*command, "--valid-percent", "0.3"]) == 0
    train = Manifest.read(tmp_path / "out" / "train.tsv")
    assert sorted((tmp_path / "out" / "valid.lbl").read_text().split()) == ["0", "1", "2"] and len(train) == 6
    assert all(item["source"] is not None for item in AudioDataset(train, sample_rate=8000))


def test_only_files_that_a_table_names_are_read(sounds, tmp_path, capsys):
    for number in range(20):
        (sounds / f"bad {number}.wav").write_bytes(b"RIFF")
    rows = [f"clip {number}.wav,a" for number in range(8)] + ["C:\\data\\more\\x.flac,a", "broken,a"]
    (tmp_path / "t.csv").write_text("\n".join(["file,label", *rows]))
    command = ["manifest", str(sounds), "--dest", str(tmp_path / "out"), "--labels", str(tmp_path / "t.csv")]
    assert main([*command, "--valid-percent", "0"]) == 0
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if line.startswith("left out")] == [
        f"left out: {sounds}/broken.wav: not readable as sound: Format not recognised."
    ]
    assert "skipped 22 files without a label" in said  # those that were not read, and two clips
    assert len(Manifest.read(tmp_path / "out" / "train.tsv")) == 9


def test_list_of_an_earlier_run_is_removed(sounds, tmp_path):
    listed = tmp_path / "out" / "skipped.tsv"
    command = ["manifest", str(sounds), "--dest", str(tmp_path / "out")]
    assert main(command) == 0 and listed.exists()
    (sounds / "broken.wav").unlink()
    assert main(command) == 0 and not listed.exists()
