"""Label tables, and matching them to files."""

import pytest

from bridle_fairseq.prepare.tables import Entry, match, read_names, read_segments, read_table
from bridle_fairseq.utils.errors import InputError


def write(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    return tmp_path / "t.csv"


def test_default_columns(tmp_path):
    path = write(tmp_path, 'name, category,split,fold\na.wav,"dog, wild",val,1\nb.wav,cat,training,2\n')
    assert read_table(path) == {"a.wav": Entry(["dog, wild"], "valid"), "b.wav": Entry(["cat"], "train")}
    entries = read_table(path, {"fold": "fold"}, separator=",")
    assert entries["a.wav"] == Entry(["dog", "wild"], "valid", "1")


def test_named_columns(tmp_path):
    path = write(tmp_path, "filename,label,digit,who\na,x,3,s1\n")
    assert read_table(path, {"label": "digit", "split": "who"}) == {"a": Entry(["3"], "s1")}


@pytest.mark.parametrize(
    "text,columns,said",
    [
        ("", {}, "no rows"),
        ("name,label\n", {}, "no rows"),
        ("what,label\na,b\n", {}, "columns what, label; expected for the name one of path, filename"),
        ("name,what\na,b\n", {}, "expected for the label one of label, labels"),
        ("name,label\na,b\n", {"label": "kind"}, "expected for the label 'kind'"),
        ("name,label\na,b\n", {"fold": "fold"}, "expected for the fold 'fold'"),
        ("name,label\na\n", {}, "row 2: 1 columns; expected 2"),
        ("name,label\na,b\na,c\n", {}, "row 3: 'a' is listed twice"),
        ("name,label,split\na,b,train\nc,d,../x\n", {}, "row 3, split: '../x'; expected a name"),
        ("name,label,fold\na,b,/x\n", {"fold": "fold"}, "row 2, fold: '/x'; expected a name"),
    ],
)
def test_bad_table(tmp_path, text, columns, said):
    with pytest.raises(InputError) as error:
        read_table(write(tmp_path, text), columns)
    assert said in str(error.value) and "t.csv" in str(error.value)


def test_match_by_path_and_bare_name(scan_of):
    scan = scan_of("x/a.wav", "y/b.flac", "c.wav", "unknown.wav")
    one, two, three = Entry(["1"]), Entry(["2"]), Entry(["3"])
    for names in (("x/a.wav", "y/b.flac", "c.wav"), ("x/a", "b", "./c.wav"), ("a.wav", "b.flac", "c")):
        assert match(scan, dict(zip(names, (one, two, three), strict=True))) == [one, two, three, None]


def test_ambiguous_names_match_by_exact_path_only(scan_of):
    scan = scan_of("a.wav", "x/a.wav", "x/a.flac", "b.wav")
    one, two = Entry(["1"]), Entry(["2"])
    assert match(scan, {"a": one, "b": two}) == [
        one,
        None,
        None,
        two,
    ]  # "a": path of a.wav, no extension
    assert match(scan, {"a.wav": one}) == [one, None, None, None]
    assert match(scan, {"x/a.flac": two, "x/a": one}) == [None, None, two, None]


def test_no_match(scan_of):
    with pytest.raises(InputError, match=r"/r: no file is named.*such as 'z\.wav'.*such as 'a\.wav'"):
        match(scan_of("a.wav"), {"z.wav": Entry(["1"])})


def test_candidate_names(scan_of):
    scan = scan_of("Yid_30.wav", "other.wav")
    entry = Entry(["1"])
    assert match(scan, {("id", 30): entry}, lambda key: [key[0], f"Y{key[0]}_{key[1]}"]) == [entry, None]


def test_audioset_segments(tmp_path):
    path = write(
        tmp_path, '# created\n# YTID, start_seconds, end_seconds, positive_labels\n-x1, 30.000, 40.000, "/m/1,/t/2"\n'
    )
    assert read_segments(path) == {("-x1", 30.0, 40.0): ["/m/1", "/t/2"]}
    for line in ("id, 3, 4\n", "id, x, 4, /m/1\n"):
        with pytest.raises(InputError, match="expected 'id, start, end,"):
            read_segments(write(tmp_path, line))


def test_read_names(tmp_path):
    assert read_names(write(tmp_path, "a/b.wav\n\n c.wav \n")) == ["a/b.wav", "c.wav"]
    with pytest.raises(InputError, match="none.txt: cannot read this list: No such file"):
        read_names(tmp_path / "none.txt")
    (tmp_path / "names.txt").write_bytes(b"a\nb\xff\n")
    with pytest.raises(InputError, match=r"names.txt, line 2: b'b\\xff\\n' is not UTF-8; expected this list"):
        read_names(tmp_path / "names.txt")
