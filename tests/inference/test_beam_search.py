"""Beam search: against paths by hand, with a lexicon and a language model, and without the decoder."""

from __future__ import annotations

import sys

import pytest
import torch

from bridle_fairseq.data.manifests.transcripts import SPECIAL, Vocabulary
from bridle_fairseq.inference.beam_search import BeamSearch
from bridle_fairseq.nn.ctc import Emissions, greedy
from bridle_fairseq.utils.errors import InputError

VOCABULARY = Vocabulary([*SPECIAL, "|", "A", "B"], "ltr")


def test_missing_decoder_is_an_input_error(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(
        InputError, match="beam search needs torchaudio's decoder .*; install it: pip install torchaudio"
    ):
        BeamSearch(VOCABULARY)


@pytest.fixture
def installed() -> None:
    pytest.importorskip("flashlight.lib.text")
    pytest.importorskip("torchaudio")


def emissions(*frames: dict[str, float]) -> Emissions:
    p = torch.full((1, len(frames), len(VOCABULARY)), 1e-4)
    for number, frame in enumerate(frames):
        for symbol, share in frame.items():
            p[0, number, VOCABULARY.symbols.index(symbol)] = share
    return Emissions(p.log(), torch.tensor([len(frames)]))


def test_probability_sums_over_paths(installed) -> None:
    """The likeliest path is blank twice (0.36); those that spell A have 0.64 together."""
    found = emissions({"<s>": 0.6, "A": 0.4}, {"<s>": 0.6, "A": 0.4})
    assert greedy(found) == [[]]
    assert BeamSearch(VOCABULARY)(found) == [VOCABULARY.numbers("A |")]  # an end of the last word is as in references
    ended = emissions({"A": 0.9}, {"|": 0.9}, {"<s>": 0.9})
    assert BeamSearch(VOCABULARY)(ended) == greedy(ended) == [VOCABULARY.numbers("A |")]
    pieces = Vocabulary([*SPECIAL, "\u2581", "A", "B"], "spm")
    assert BeamSearch(pieces)(found) == [pieces.numbers("A")]


def test_lexicon_restricts_words(installed, tmp_path) -> None:
    (tmp_path / "lexicon.txt").write_text("AB\tA B |\n")
    found = emissions({"A": 0.9, "B": 0.1}, {"A": 0.6, "B": 0.4}, {"|": 0.9})
    assert VOCABULARY.text(greedy(found)[0]) == "A"
    assert VOCABULARY.text(BeamSearch(VOCABULARY, lexicon=str(tmp_path / "lexicon.txt"))(found)[0]) == "AB"


@pytest.mark.parametrize("lexicon", [None, "A\tA |\nB\tB |\n"])
def test_language_model_of_symbols_or_words(installed, tmp_path, lexicon) -> None:
    """What it finds unlikely is not chosen, though it sounds likelier."""
    pytest.importorskip("kenlm")
    (tmp_path / "lm.arpa").write_text(
        "\\data\\\nngram 1=6\nngram 2=1\n\n\\1-grams:\n-9\t<unk>\n-9\t<s>\t0\n-1\t</s>\n-3\tA\t0\n-0.1\tB\t0\n"
        "-1\t|\t0\n\n\\2-grams:\n-0.1\tB |\n\n\\end\\\n"
    )
    if lexicon:
        (tmp_path / "lexicon.txt").write_text(lexicon)
    options = {"lexicon": str(tmp_path / "lexicon.txt") if lexicon else None}
    found = emissions({"A": 0.6, "B": 0.4}, {"|": 0.9})
    assert VOCABULARY.text(BeamSearch(VOCABULARY, **options)(found)[0]) == "A"
    assert VOCABULARY.text(BeamSearch(VOCABULARY, lm=str(tmp_path / "lm.arpa"), **options)(found)[0]) == "B"


def test_unusable_files_are_refused(installed, tmp_path) -> None:
    pytest.importorskip("kenlm")
    (tmp_path / "odd.txt").write_text("C\tC |\n")
    (tmp_path / "one.arpa").write_text("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\t<unk>\n\n\\end\\\n")
    for options, sentence in (
        ({"lexicon": "none.txt"}, "--lexicon none.txt: no such file"),
        ({"lexicon": str(tmp_path / "odd.txt")}, "ctc_decoder cannot use .*odd.txt"),
        ({"lm": str(tmp_path / "one.arpa")}, r"cannot use .*one.arpa \(.*at least a bigram"),
        ({"beam_size": 0}, "--beam-size is 0; expected 1 or more"),
    ):
        with pytest.raises(InputError, match=sentence):
            BeamSearch(VOCABULARY, **options)
