"""SentencePiece models of units: losslessness, merges, costs, and errors."""

import builtins

import numpy as np
import pytest

from bridle_fairseq.data.artifacts.codes import CodesInfo
from bridle_fairseq.units import sentencepiece as pieces
from bridle_fairseq.units.info import UnitsInfo
from bridle_fairseq.units.scheme import LAYOUTS, Scheme, from_characters, to_characters
from bridle_fairseq.utils.errors import InputError

sentencepiece = pytest.importorskip("sentencepiece")

CODES = 40


def lines(count=60, length=50, seed=0):
    """Random codes below 20 with a repeated motif of four codes."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        units = random.integers(0, 20, length)
        units[10:14] = units[30:34] = [3, 1, 4, 1]
        yield to_characters(units)


def trained(*arguments, **options):
    return sentencepiece.SentencePieceProcessor(model_proto=pieces.train_on_units(*arguments, **options))


def test_unseen_codes_are_pieces():
    model = trained(lines(), 60, CODES)
    assert model.get_piece_size() == 60
    text = to_characters(np.random.default_rng(1).permutation(CODES))
    numbers = model.encode(text)
    assert pieces.UNKNOWN not in numbers and model.decode(numbers) == text and model.decode(model.encode("")) == ""


def test_round_trip_of_all_layouts_is_lossless():
    """Codes -> units -> text -> pieces -> text -> units -> codes for 10,000 random sequences."""
    random = np.random.default_rng(2)
    sequences = [random.integers(0, 256, (length, 4)) for length in random.integers(0, 16, 10_000)]
    some = Scheme.of(4, 256, "all", "interleaved")
    model = trained((to_characters(some.units(codes)[0]) for codes in sequences[:300]), 1200, some.size)
    for layout, count in zip(LAYOUTS, (10_000, 500, 500), strict=True):
        scheme = Scheme.of(4, 256, "all", layout)
        rows = (enumerate(scheme.units(codes)) for codes in sequences[:count])
        texts = [to_characters(units + scheme.first_character(place)) for row in rows for place, units in row]
        again = model.decode(model.encode(texts))
        for number, codes in enumerate(sequences[:count]):
            streams = again[number * scheme.streams : (number + 1) * scheme.streams]
            units = [from_characters(line) - scheme.first_character(place) for place, line in enumerate(streams)]
            assert np.array_equal(scheme.codes(units), codes)


def test_repeated_sequence_becomes_one_piece():
    motif = to_characters(np.array([3, 1, 4, 1]))
    assert len(trained(lines(), 60, CODES).encode(motif)) == 1


def test_long_lines_and_max_units():
    motif = np.tile([7, 8, 9], 2 * pieces.LONGEST_LINE)
    late = np.concatenate([np.arange(pieces.LONGEST_LINE) % 5 + 20, motif])
    assert len(trained([to_characters(late)], CODES + 3, CODES).encode(to_characters(motif[:3]))) == 1
    ignored = [to_characters(np.arange(20)), to_characters(motif)]
    model = trained(ignored, CODES + 2, CODES, max_units=20)
    assert len(model.encode(to_characters(motif[:3]))) == 3


@pytest.mark.parametrize(
    ("text", "vocab_size", "sentence"),
    [
        (["\U000f0000"], CODES, "a vocabulary of 40 pieces; expected more than the 40 codes"),
        ([], CODES + 1, "no units to learn pieces from"),
    ],
)
def test_invalid_training(text, vocab_size, sentence):
    with pytest.raises(InputError, match=sentence):
        pieces.train_on_units(text, vocab_size, CODES)


def test_vocabulary_is_limited_by_repetitions():
    assert trained(["\U000f0000\U000f0001" * 2], 5000, CODES).get_piece_size() < CODES + 20


def test_not_a_model(tmp_path):
    (tmp_path / "junk.model").write_bytes(b"junk")
    (tmp_path / "empty.model").write_bytes(b"")
    whole = pieces.train_on_units(lines(), 50, CODES)
    (tmp_path / "bytes.model").write_bytes(whole.replace(to_characters(np.array([0])).encode(), b"\xff\xff\xff\xff"))
    for name in ("junk.model", "none.model", "empty.model", "bytes.model"):
        with pytest.raises(InputError, match=f"{name}: not a model of SentencePiece"):
            pieces.load(tmp_path / name)


def test_missing_sentencepiece(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "sentencepiece":
            raise ImportError("No module named 'sentencepiece'")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"bridle_fairseq\[units\]"):
        pieces.load("some.model")


def test_unigram_cost():
    counts, learned = np.array([6, 2, 0, 0]), np.array([3, 0, 1, 0])
    cost = pieces.unigram_cost(counts, learned)
    assert cost.tokens == 8
    assert cost.entropy == pytest.approx(-(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)))
    assert cost.held_out == pytest.approx(-(6 * np.log2(4 / 8) + 2 * np.log2(1 / 8)) / 8)
    with pytest.raises(InputError, match="no tokens"):
        pieces.unigram_cost(np.zeros(4, int), learned)


def test_model_of_other_units_is_refused(tmp_path):
    path = tmp_path / "50.model"
    path.write_bytes(pieces.train_on_units(lines(), 50, CODES))
    with pytest.raises(InputError, match="50.model.json: cannot read this description of a model of pieces"):
        pieces.load_matching(path, "a.units.json", info("a"))
    pieces.write_description(path, info("a"))
    assert pieces.load_matching(path, "a.units.json", info("a")).get_piece_size() == 50
    with pytest.raises(InputError, match=r"b.units.json: checkpoint_sha256 b; expected a as in .*50.model.json"):
        pieces.load_matching(path, "b.units.json", info("b"))
    with pytest.raises(InputError, match="a.units.json: level 1; expected all"):
        pieces.load_matching(path, "a.units.json", info("a", level="1"))


def info(checkpoint, level="all"):
    return UnitsInfo(CodesInfo(2, 20, {}, checkpoint, "c"), 60, level, "interleaved", "text", False)
