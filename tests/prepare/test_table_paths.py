"""Paths in tables, and rows without a file."""

import pytest

from bridle_fairseq.prepare.table_paths import below_source, report_missing
from bridle_fairseq.prepare.tables import Entry, match
from bridle_fairseq.utils.errors import InputError

FILES = {"dog/1.wav", "cat/1.wav", "2.wav"}


@pytest.mark.parametrize(
    "start", ["/r/", "/home/you/data/", "C:\\Users\\You\\data\\", "C:/data/", "\\\\server\\share\\data\\", ""]
)
def test_paths_of_other_machines(start):
    names = [start + name.replace("/", "\\" if "\\" in start else "/") for name in ("dog/1.wav", "cat/1.wav", "2.wav")]
    found = below_source(names, FILES, "/r")
    assert [found.get(name, name) for name in names] == ["dog/1.wav", "cat/1.wav", "2.wav"]


def test_one_folder_for_the_whole_table():
    """A file of another folder with the same name does not get the row."""
    names = ["/data/dog/1.wav", "/data/bird/1.wav", "/data/2.wav"]
    found = below_source(names, {"dog/1.wav", "2.wav", "1.wav"}, "/r")
    assert found == {"/data/dog/1.wav": "dog/1.wav", "/data/bird/1.wav": "bird/1.wav", "/data/2.wav": "2.wav"}


def test_relative_paths_stay(scan_of):
    assert below_source(["a.wav", "dog/1.wav"], FILES, "/r") == {}
    assert below_source(["dog\\1.wav", "a\\b.wav"], {"dog/1.wav", "a\\b.wav"}, "/r") == {"dog\\1.wav": "dog/1.wav"}
    one, two = Entry(["1"]), Entry(["2"])
    assert match(scan_of("dog/1.wav", "b.wav"), {"D:\\x\\dog\\1.wav": one, "D:\\x\\b.wav": two}) == [one, two]


def test_rows_without_a_file_are_counted_listed_and_limited(scan_of, tmp_path, capsys):
    scan = scan_of(*(f"{number}.wav" for number in range(100)))
    rows = {f"{number}.wav": Entry([str(number)]) for number in range(90, 101)}
    report_missing(rows, match(scan, rows), scan, tmp_path, 0.01)
    said = capsys.readouterr().err
    assert "1 of 11 rows of the label tables have no readable file of their own, such as '100.wav'; all of" in said
    assert (tmp_path / "skipped.tsv").read_text().startswith("'100.wav'\trow of a label table")
    rows = {f"{number}.wav": Entry([str(number)]) for number in range(90, 111)}
    with pytest.raises(
        InputError, match=r"11 of 21 rows .*, more than the 5 allowed .*skipped\.tsv; see --max-skipped"
    ):
        report_missing(rows, match(scan, rows), scan, tmp_path, 0.01)
    report_missing(rows, match(scan, rows), scan, tmp_path, 1.0)
