"""manifests/huggingface.py on small data sets, as the library datasets writes them."""

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import Image

from bridle_fairseq.data.audio.decode import read_crop
from bridle_fairseq.data.image.decode import decode
from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
SCRIPT = Path(__file__).parents[2] / "manifests" / "huggingface.py"


def sound(number):
    file = io.BytesIO()
    soundfile.write(file, np.full(100 + number, number / 100), 16000, format="FLAC")
    return file.getvalue()


def picture(number):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(path, column, media, names=None, **columns):
    """A parquet file with a column of media, and ClassLabels if there are names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({**columns, column: [{"bytes": item, "path": None} for item in media]})
    features = {"label": {"names": names, "_type": "ClassLabel"}} if names else {}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(table.replace_schema_metadata(metadata), path)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the script from its command line; the exit code and what is on stderr."""

    def script(*arguments):
        monkeypatch.syspath_prepend(SCRIPT.parent)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        spec = importlib.util.spec_from_file_location("__main__", SCRIPT)
        with pytest.raises(SystemExit) as end:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return SimpleNamespace(returncode=end.value.code, stderr=capsys.readouterr().err)

    return script


def labelled(folder, split):
    """(content at the beginning, class) of each row."""
    manifest, classes = Manifest.read(folder / f"{split}.tsv"), Classes.read(folder / "labels.csv")
    labels = Labels.read(folder / f"{split}.lbl", manifest, classes)
    return [(manifest.path(row), int(manifest.sizes[row]), classes.names[labels[row][0]]) for row in range(len(labels))]


def test_sounds_with_classes(tmp_path, run):
    names = ["dog", "cat, wild"]
    shards = {"train-00000-of-00002": range(4), "train-00001-of-00002": range(4, 6), "validation-00000-of-00001": [6]}
    for name, numbers in shards.items():
        labels = [number % 2 for number in numbers]
        write(tmp_path / f"in/data/{name}.parquet", "audio", map(sound, numbers), names, label=labels)
    done = run(tmp_path / "in", "--dest", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    train = labelled(tmp_path / "out", "train")
    assert [size - 100 for _, size, _ in train] == list(range(6))
    assert [label for *_, label in train] == ["dog", "cat, wild"] * 3
    for number, (path, _, _) in enumerate(train):
        np.testing.assert_allclose(read_crop(path, 16000), number / 100, atol=1e-4)
    assert [label for *_, label in labelled(tmp_path / "out", "valid")] == ["dog"]


def test_images_without_labels_are_split(tmp_path, run):
    write(tmp_path / "in/train.parquet", "image", map(picture, range(20)), text=list(map(str, range(20))))
    done = run(tmp_path / "in", "--dest", tmp_path / "out", "--modality", "image", "--valid-percent", "0.1")
    assert done.returncode == 0, done.stderr
    splits = [Manifest.read(tmp_path / "out" / f"{split}.tsv") for split in ("train", "valid")]
    assert list(map(len, splits)) == [18, 2] and not (tmp_path / "out" / "labels.csv").exists()
    reds = {int(decode(split.path(row))[0, 0, 0]) for split in splits for row in range(len(split))}
    assert reds == set(range(20))


@pytest.mark.parametrize(
    ("share", "sizes"), [("0.25", {"train": 6, "valid": 2, "test": 3}), ("0", {"train": 8, "test": 3})]
)
def test_a_missing_split_for_validation_is_drawn_from_train(tmp_path, run, share, sizes):
    for split, count in (("train", 8), ("test", 3)):
        labels = [number % 2 for number in range(count)]
        write(tmp_path / f"in/{split}.parquet", "image", map(picture, range(count)), ["a", "b"], label=labels)
    done = run(tmp_path / "in", "--dest", tmp_path / "out", "--modality", "image", "--valid-percent", share)
    assert done.returncode == 0, done.stderr
    found = {path.stem: len(Manifest.read(path)) for path in (tmp_path / "out").glob("*.tsv")}
    assert found == sizes
    if "valid" in sizes:
        assert sorted(label for *_, label in labelled(tmp_path / "out", "valid")) == ["a", "b"]


def test_rows_without_media_are_counted(tmp_path, run):
    write(tmp_path / "in/train.parquet", "audio", [sound(1), None, sound(2), sound(3)], label=["a", "a", "b", "b"])
    done = run(tmp_path / "in", "--dest", tmp_path / "out", "--valid-percent", "0")
    assert done.returncode == 0 and "left out: 1 rows without bytes" in done.stderr
    assert [label for *_, label in labelled(tmp_path / "out", "train")] == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (lambda path: path.unlink(), [], "no *.parquet file"),
        (
            lambda path: path.rename(path.with_suffix(".arrow")),
            [],
            "is of save_to_disk: write it with to_parquet",
        ),
        (lambda path: path.write_bytes(b"PAR1" * 9), [], "train.parquet: cannot read this parquet file"),
        (lambda path: None, ["--media-column", "image"], "columns text, audio; expected 'image' with bytes in it"),
        (lambda path: None, ["--label-column", "kind"], "columns text, audio; expected 'kind'"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, run, spoil, arguments, said):
    write(tmp_path / "in/train.parquet", "audio", map(sound, range(3)), text=["a", "b", "c"])
    spoil(tmp_path / "in" / "train.parquet")
    done = run(tmp_path / "in", "--dest", tmp_path / "out", *arguments)
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
