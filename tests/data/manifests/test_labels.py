"""Classes of a data set and labels of rows."""

import numpy as np
import pytest

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError

MANIFEST = Manifest("/r", ["a", "b", "c"], [1, 1, 1])
ANIMALS = Classes(["/m/1", "/m/2", "/m/3"], ["Dog", "Cat, wild", "Cow"])


def test_classes_round_trip_in_audioset_format(tmp_path):
    ANIMALS.write(tmp_path / "labels.csv")
    assert (tmp_path / "labels.csv").read_text().splitlines()[:3] == [
        "index,mid,display_name",
        "0,/m/1,Dog",
        '1,/m/2,"Cat, wild"',
    ]
    read = Classes.read(tmp_path / "labels.csv")
    assert (read.ids, read.names, len(read)) == (ANIMALS.ids, ANIMALS.names, 3)
    assert [read.number("/m/3"), read.number("Cow"), read.find("Cow"), read.find("/m/1"), read.find("?")] == [
        *(2, None, 2, 0, None)
    ]


def test_classes_from_names():
    classes = Classes.from_names(["10", "9", "b, c", "a", "9"])
    assert classes.names == ["9", "10", "a", "b, c"] and classes.ids == ["9", "10", "a", "b_ c"]
    with pytest.raises(InputError, match="'b_ c' is listed twice"):
        Classes.from_names(["b, c", "b_ c"])
    assert Classes.from_names([5000 * "9", "8"]).names == ["8", 5000 * "9"]  # more digits than Python converts


@pytest.mark.parametrize(
    "content,said",
    [
        ("", "line 1: ''; expected 'index,mid,display_name'"),
        ("index,mid\n0,a\n", "line 1: 'index,mid'"),
        ("index,mid,display_name\n", "no class"),
        ("index,mid,display_name\n0,a,A\n2,b,B\n", "class 1: '2,b,B'; expected '1,mid,display_name'"),
        ("index,mid,display_name\n0,a\n", "class 0"),
        ("index,mid,display_name\n0,a,A\n1,a,B\n", "class 'a' is listed twice"),
    ],
)
def test_bad_classes(tmp_path, content, said):
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(InputError) as error:
        Classes.read(tmp_path / "labels.csv")
    assert said in str(error.value) and str(tmp_path) in str(error.value)
    with pytest.raises(InputError, match="none.csv: cannot read this csv file: No such file"):
        Classes.read(tmp_path / "none.csv")
    (tmp_path / "labels.csv").write_text("index,mid,display_name\n0,a," + "x" * 200_000)
    with pytest.raises(InputError, match=r"labels\.csv, line 2: no csv \(.*\); expected this csv file"):
        Classes.read(tmp_path / "labels.csv")


def test_line_of_classes_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"index,mid,display_name\n0,a,caf\xe9\n")
    with pytest.raises(InputError, match=r"labels\.csv, line 2: b'0,a,caf\\xe9\\n' is not UTF-8; expected this csv"):
        Classes.read(tmp_path / "labels.csv")


def test_labels_round_trip(tmp_path):
    Labels([[0], [2, 1], []], ANIMALS).write(tmp_path / "train.lbl")
    assert (tmp_path / "train.lbl").read_text() == "/m/1\n/m/3,/m/2\n\n"
    labels = Labels.read(tmp_path / "train.lbl", MANIFEST, ANIMALS)
    assert [labels[row] for row in range(len(labels))] == [[0], [2, 1], []]
    assert labels.multi_hot(1).tolist() == [0, 1, 1] and labels.multi_hot(1).dtype == np.float32
    assert labels.counts().tolist() == [1, 1, 1] and not labels.single
    assert Labels([[0], [2], [2]], ANIMALS).single


def test_bad_labels(tmp_path):
    path = tmp_path / "train.lbl"
    path.write_text("/m/1\n/m/2\n")
    with pytest.raises(InputError, match=r"train\.lbl: 2 lines; expected 3, one for each row"):
        Labels.read(path, MANIFEST, ANIMALS)
    path.write_text("/m/1\n/m/2, /m/9\n/m/1\n")
    with pytest.raises(InputError, match=r"train\.lbl, line 2: unknown class '/m/9'; expected one of the 3 ids"):
        Labels.read(path, MANIFEST, ANIMALS)
    with pytest.raises(InputError, match=r"none\.lbl: cannot read these labels: No such file"):
        Labels.read(tmp_path / "none.lbl", MANIFEST, ANIMALS)
    path.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="line 1: .* is not UTF-8"):
        Labels.read(path, MANIFEST, ANIMALS)
