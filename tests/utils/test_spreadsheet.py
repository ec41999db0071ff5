"""Tables that a spreadsheet can open."""

import csv

import pytest

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.spreadsheet import MAX_BYTES, read_cells, write_table

FORMULAS = ["=1+1", "+x", "-x", "@SUM(1)", "\tx", "\rx", "\nx", "-2+3", "＝1", "'=1", "''@x"]
PLAIN = ["x", "", "'x", "x=1", "-1", "+2.5", "-1e-05", "1e+20", "-inf", "nan", "a,b\n", "ä"]


@pytest.mark.parametrize("cell", FORMULAS)
def test_formula_gets_an_apostrophe_and_is_read_as_written(tmp_path, cell):
    write_table(tmp_path / "t.csv", [["name", cell]])
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", f"'{cell}"]]
    assert list(read_cells(tmp_path / "t.csv")) == [["name", cell]]


def test_other_cells_are_as_they_were(tmp_path):
    write_table(tmp_path / "t.csv", [PLAIN, [-1, -0.5, float("-inf"), None]])
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [PLAIN, ["-1", "-0.5", "-inf", ""]]
    assert next(read_cells(tmp_path / "t.csv")) == PLAIN


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a,b\n1\n", "line 2: 1 cells; expected 2, as in line 1"),
        (b"a,b\n1,\xff\n", "line 2: b'1,\\xff\\n' is not UTF-8"),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", "line 2: no csv (field larger than field limit (131072))"),
        (b"a\n" * (MAX_BYTES // 2 + 1), "more than 64 MB; expected a table of at most 5000 classes"),
    ],
)
def test_unusable_table_is_reported(tmp_path, content, sentence):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        list(read_cells(tmp_path / "t.csv"))
    assert sentence in str(error.value) and "t.csv" in str(error.value)
