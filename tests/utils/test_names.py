"""Names that become names of files."""

import pytest

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.names import checked_name


@pytest.mark.parametrize("name", ["train", "fold 1", "a.b", "ä 声", "-1", "x" * 200, "x.."])
def test_names(name):
    assert checked_name(name, "t.csv, row 2") == name


@pytest.mark.parametrize(
    "name",
    ["", "  ", ".", "..", ".hidden", "../x", "/abs/x", "a/b", "a\\b", "a\nb", "a\0b", "\x1b[2J", "\udcff", "ä" * 101],
)
def test_bad_names_are_one_sentence_with_the_source(name):
    with pytest.raises(InputError, match=r"^t\.csv, row 2: .*expected") as failed:
        checked_name(name, "t.csv, row 2")
    assert str(failed.value).isprintable()
