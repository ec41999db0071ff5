"""Tables of spreadsheets: separators and encodings."""

import pytest

from bridle_fairseq.prepare.csv_files import read_exported
from bridle_fairseq.prepare.tables import Entry, read_table
from bridle_fairseq.utils.errors import InputError

NAMES = ("file", "label")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_encodings(tmp_path, separator, encoding, capsys):
    rows = [["file", "label", "note"], ["ä b.wav", 'a,b;"c"', "1"], ["c.wav", "dog", "2;\t3"]]
    quoted = ["".join(f'"{cell.replace(chr(34), chr(34) * 2)}"{separator}' for cell in row)[:-1] for row in rows]
    (tmp_path / "t.csv").write_text("\r\n".join(quoted), encoding=encoding, newline="")
    assert read_exported(tmp_path / "t.csv", NAMES) == rows and capsys.readouterr().err == ""


def test_header_decides_not_the_number_of_separators(tmp_path):
    (tmp_path / "t.csv").write_text("file,label;with;many\na.wav,x\n")
    assert read_exported(tmp_path / "t.csv", NAMES)[0] == ["file", "label;with;many"]
    (tmp_path / "t.csv").write_text("file;label,of,a,dog\na.wav;x\n")
    assert read_exported(tmp_path / "t.csv", ["file", "label,of,a,dog"])[1] == ["a.wav", "x"]


def test_windows_encoding_is_read_with_a_warning(tmp_path, capsys):
    (tmp_path / "t.csv").write_bytes("file;label\na.wav;Hund\nb.wav;Kätzchen\n".encode("cp1252"))
    assert read_table(tmp_path / "t.csv") == {"a.wav": Entry(["Hund"]), "b.wav": Entry(["Kätzchen"])}
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "t.csv, line 3: not UTF-8; read as cp1252" in said and "Kätzchen" in said


def test_mistakes(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: cannot read this csv file: No such file"):
        read_exported(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_text("file\n" + "x" * 200000)
    with pytest.raises(InputError, match=r"t\.csv, line 2: no csv \(field larger"):
        read_exported(tmp_path / "t.csv")
