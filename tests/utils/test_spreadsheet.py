"""Tables that a spreadsheet can open."""

import csv

import pytest

from bridle_fairseq.utils.spreadsheet import read_table, write_table

FORMULAS = ["=1+1", "+x", "-x", "@SUM(1)", "\tx", "\rx", "\nx", "-2+3", "＝1", "'=1", "''@x"]
PLAIN = ["x", "", "'x", "x=1", "-1", "+2.5", "-1e-05", "1e+20", "-inf", "nan", "a,b\n", "ä"]


@pytest.mark.parametrize("cell", FORMULAS)
def test_formula_gets_an_apostrophe_and_is_read_as_written(tmp_path, cell):
    write_table(tmp_path / "t.csv", [["name", cell]])
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", f"'{cell}"]]
    assert read_table(tmp_path / "t.csv") == [["name", cell]]


def test_other_cells_are_as_they_were(tmp_path):
    write_table(tmp_path / "t.csv", [PLAIN, [-1, -0.5, float("-inf"), None]])
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [PLAIN, ["-1", "-0.5", "-inf", ""]]
    assert read_table(tmp_path / "t.csv")[0] == PLAIN
