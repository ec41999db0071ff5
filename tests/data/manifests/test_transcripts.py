"""Dictionaries and transcripts in fairseq's formats, and bad files."""

from __future__ import annotations

import pytest
from fairseq.data import Dictionary

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.transcripts import SPECIAL, Transcripts, Vocabulary
from bridle_fairseq.prepare.transcripts import letter_counts, letters, normalized
from bridle_fairseq.utils.errors import InputError

MANIFEST = Manifest("", ["a.wav", "b.wav"], [100, 100], "train.tsv")


def test_numbers_equal_fairseq_dictionary(tmp_path) -> None:
    path = Vocabulary.write(tmp_path, "ltr", letter_counts(["SEE ÉA", "SO # 1"]))
    assert (tmp_path / "dict.ltr.txt").read_text().splitlines()[:2] == ["| 5", "E 2"]
    ours, theirs = Vocabulary.read(tmp_path, "ltr"), Dictionary.load(path)
    assert ours.symbols == theirs.symbols and ours.symbols[: len(SPECIAL)] == list(SPECIAL)
    line = " ".join(letters("SEE SO"))
    assert line == "S E E | S O |"
    assert ours.numbers(line) == theirs.encode_line(line, add_if_not_exist=False, append_eos=False).tolist()


def test_symbols_to_text(tmp_path) -> None:
    for kind, counts, line, text in (
        ("ltr", {"|": 2, "A": 1, "B": 1}, "A B | A |", "AB A"),
        ("spm", {"▁A": 1, "B": 1, "▁": 3}, "▁A B ▁ B", "AB B"),
    ):
        Vocabulary.write(tmp_path, kind, counts)
        vocabulary = Vocabulary.read(tmp_path, kind)
        assert vocabulary.text(vocabulary.numbers(line)) == text
        assert " ".join(vocabulary.spelled(vocabulary.numbers(line))) == line
        (tmp_path / f"train.{kind}").write_text(f"{line}\n{line} {line}\n")
        rows = Transcripts.read(tmp_path / f"train.{kind}", MANIFEST, vocabulary)
        assert rows[0].tolist() == vocabulary.numbers(line) and rows[1].tolist() == 2 * vocabulary.numbers(line)


def test_normalized() -> None:
    assert normalized("  don\u2019t  stop \t now. ", "upper", drop_punctuation=True) == "DON'T STOP NOW"
    assert (
        normalized("forty-two \u201cline\u201d Bible\u2014yes", "lower", drop_punctuation=True)
        == "forty two line bible yes"
    )
    assert normalized("Kept, as it \nIS") == "Kept, as it IS"
    assert normalized("e\u0301") == "\u00e9"  # one composed letter


@pytest.mark.parametrize(
    ("dictionary", "transcripts", "sentence"),
    [
        (None, "A |\nA |\n", "dict.ltr.txt: cannot read this dictionary: No such file"),
        ("", "A |\nA |\n", "dict.ltr.txt: no symbol; expected a line"),
        ("A 1\n| x\n", "A |\nA |\n", r"dict.ltr.txt, line 2: '\| x'; expected 'symbol count'"),
        ("A 1\n| 1\nA 2\n", "A |\nA |\n", "dict.ltr.txt, line 3: 'A' a second time; expected each once"),
        ("A 1\n| 1\n<pad> 2\n", "A |\nA |\n", "dict.ltr.txt, line 3: '<pad>' a second time"),
        (
            "A 1\n| 1\n",
            "A |\nA É |\n",
            "train.ltr, line 2: unknown symbol 'É'; expected one of the 2 symbols of .*dict.ltr",
        ),
        ("A 1\n| 1\n", "A |\n<s> |\n", "train.ltr, line 2: unknown symbol '<s>'"),
        ("A 1\n| 1\n", "\nA |\n", "train.ltr, line 1: an empty transcript"),
        ("A 1\n| 1\n", "|\nA |\n", "train.ltr, line 1: an empty transcript"),
        ("A 1\n| 1\n", "A |\n", "train.ltr: 1 lines; expected 2, one for each row of train.tsv"),
        ("A 1\n| 1\n", None, "train.ltr: cannot read these transcripts: No such file"),
    ],
)
def test_bad_files(tmp_path, dictionary, transcripts, sentence) -> None:
    for name, text in (("dict.ltr.txt", dictionary), ("train.ltr", transcripts)):
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        Transcripts.read(tmp_path / "train.ltr", MANIFEST, Vocabulary.read(tmp_path, "ltr"))
    with pytest.raises(InputError, match="task.labels is 'phn'; expected one of ltr, spm"):
        Vocabulary.read(tmp_path, "phn")
