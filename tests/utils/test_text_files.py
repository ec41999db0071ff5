import pytest

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.text_files import read_lines


def test_line_that_is_not_utf8_is_named(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é\r\n".encode() * 20_000 + b"bad \xff\n" + b"good\n")
    with pytest.raises(InputError, match=r"a\.txt, line 20001: b'bad \\xff\\n' is not UTF-8; expected these lines"):
        list(read_lines(path, "these lines"))
    path.write_bytes("é\r\n\nb".encode())
    assert list(read_lines(path, "these lines")) == ["é", "", "b"]
    with pytest.raises(InputError, match="cannot read these lines: No such file"):
        list(read_lines(tmp_path / "none", "these lines"))
