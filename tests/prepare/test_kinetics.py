"""Lists of labelled clips, in all three formats."""

import pytest

from bridle_fairseq.prepare.kinetics import clip_names, read_lists
from bridle_fairseq.prepare.tables import Entry
from bridle_fairseq.utils.errors import InputError

HEADER = "label,youtube_id,time_start,time_end,split\n"


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_three_formats(write):
    official = write(
        "a.csv", HEADER + '"shaking hands, long",-AbCdEfGhI_,10,20,train\njuggling,abcdefghijk,5.0,15,train\n'
    )
    table = write("b.csv", "path,label\nx/1.mp4,juggling\nx/2.mp4,2\n")
    lines = write("c.txt", "./x y/3.mp4 0\n/all/x/4.mp4 11\n")
    commas = write("d.txt", "x/5, part.mp4,dog\n")
    entries = read_lists({"train": [official, table], "valid": [lines], "test": [commas]})
    assert entries == {
        "-AbCdEfGhI__000010_000020": Entry(["shaking hands, long"], "train"),
        "abcdefghijk_000005_000015": Entry(["juggling"], "train"),
        "x/1.mp4": Entry(["juggling"], "train"),
        "x/2.mp4": Entry(["2"], "train"),
        "./x y/3.mp4": Entry(["0"], "valid"),
        "/all/x/4.mp4": Entry(["11"], "valid"),
        "x/5, part.mp4": Entry(["dog"], "test"),
    }
    assert read_lists({"train": [lines], "valid": []})["./x y/3.mp4"] == Entry(["0"], "")
    assert read_lists({"train": [], "valid": []}) == {}


def test_clip_names():
    assert clip_names("-AbCdEfGhI__000010_000020")[-1] == "-AbCdEfGhI_"
    assert clip_names("/all/x/4.mp4") == ["/all/x/4.mp4", "4.mp4", "4.mp4"]
    assert clip_names("./a/b_000010_000020.mp4")[0] == "a/b_000010_000020.mp4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4\n", "line 1: 'a.mp4'; expected 'path label'"),
        ("a.mp4 1\na.mp4 2\n", "line 2: 'a.mp4' has another label"),
        ("", "no clips"),
        (HEADER + "dog,abc,x,20,train\n", "row 2: 'dog, abc, x, 20, train'; expected label, youtube_id"),
        (HEADER + "dog,abc\n", "row 2"),
    ],
)
def test_bad_lists(write, text, message):
    with pytest.raises(InputError, match=f"list.csv.*{message}"):
        read_lists({"train": [write("list.csv", text)]})


def test_clip_in_two_splits(write):
    lists = {"train": [write("a.txt", "a.mp4 1\n")], "valid": [write("b.txt", "a.mp4 1\n")]}
    with pytest.raises(InputError, match="b.txt: 'a.mp4' is listed elsewhere"):
        read_lists(lists)
