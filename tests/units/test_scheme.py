"""Codes to units and back, compared with plain loops over the layouts."""

import numpy as np
import pytest

from bridle_fairseq.units.scheme import (
    LAYOUTS,
    MAX_CHARACTERS,
    Scheme,
    UnitError,
    collapse,
    expand,
    from_characters,
    to_characters,
)
from bridle_fairseq.utils.errors import InputError

K, C = 3, 7


def scheme(layout, level="all"):
    return Scheme.of(K, C, level, layout)


def spelled_out(codes, layout):
    """The units of every stream, by plain loops."""
    if layout == "interleaved":
        return [[level * C + codes[patch][level] for patch in range(len(codes)) for level in range(K)]]
    if layout == "flattened":
        return [[level * C + codes[patch][level] for level in range(K) for patch in range(len(codes))]]
    return [[codes[patch][level] for patch in range(len(codes))] for level in range(K)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("patches", [0, 1, 11])
def test_layouts_round_trip(layout, patches):
    codes = np.random.default_rng(0).integers(0, C, (patches, K))
    units = scheme(layout).units(codes)
    assert [u.tolist() for u in units] == spelled_out(codes.tolist(), layout)
    np.testing.assert_array_equal(scheme(layout).codes(units), codes)


def test_single_level():
    codes = np.random.default_rng(0).integers(0, C, (5, K))
    one = scheme("interleaved", "2")
    (units,) = one.units(codes)
    assert units.tolist() == codes[:, 1].tolist() and one.size == C and one.first_character(0) == C
    assert one.codes([units]).tolist() == codes[:, 1:2].tolist()


@pytest.mark.parametrize("level", ["0", "4", "x", "-1", ""])
def test_invalid_level(level):
    with pytest.raises(InputError, match="--level is .* expected a number from 1 to 3, or all"):
        scheme("interleaved", level)


@pytest.mark.parametrize(
    ("layout", "streams", "reason"),
    [
        ("interleaved", [[0, 7, 14, 1]], "4 units; expected a multiple of the 3 levels"),
        ("interleaved", [[0, 7, 21]], "unit 21; expected 0 to 20"),
        ("interleaved", [[0, 8, 14, 7, 8, 15]], "unit 7 of level 2; expected one of level 1"),
        ("flattened", [[0, 1, 7, 8, 9, 15]], "unit 9 of level 2; expected one of level 3"),
        ("separate", [[0, 1], [0, 1], [0]], "1 and 2 units of its levels"),
        ("separate", [[0], [7], [0]], "unit 7; expected 0 to 6"),
        ("separate", [[0], [-1], [0]], "unit -1; expected 0 to 6"),
    ],
)
def test_invalid_units(layout, streams, reason):
    with pytest.raises(UnitError, match=reason):
        scheme(layout).codes([np.array(units) for units in streams])


@pytest.mark.parametrize("step", [1, 3])
def test_collapse_round_trip(step):
    random = np.random.default_rng(0)
    for _ in range(50):
        units = random.integers(0, 2, (random.integers(0, 30), step)).reshape(-1)
        kept, counts = collapse(units, step)
        np.testing.assert_array_equal(expand(kept, counts, step), units)
        steps = kept.reshape(-1, step)
        assert (steps[1:] != steps[:-1]).any(1).all() and counts.sum() * step == len(units)


def test_collapse_by_patch():
    units = np.array([1, 2, 1, 2, 2, 2, 2, 1])
    assert [array.tolist() for array in collapse(units, 2)] == [[1, 2, 2, 2, 2, 1], [2, 1, 1]]
    assert [array.tolist() for array in collapse(units)] == [[1, 2, 1, 2, 1], [1, 1, 1, 4, 1]]


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([1], "2 runs of units and 1 counts"),
        ([1, 0], "the count 0"),
        ([1, 10**12], "counts for 1000000000001 units; expected at most"),
        ([2**62, 2**62], "expected at most"),
    ],
)
def test_invalid_counts(counts, reason):
    with pytest.raises(UnitError, match=reason):
        expand(np.array([4, 5]), np.array(counts))


def test_characters_are_private_use_and_bijective():
    numbers = np.arange(MAX_CHARACTERS)
    text = to_characters(numbers)
    assert len(set(text)) == MAX_CHARACTERS
    assert all(0xF0000 <= ord(c) <= 0xFFFFD or 0x100000 <= ord(c) <= 0x10FFFD for c in text)
    np.testing.assert_array_equal(from_characters(text), numbers)
    assert from_characters("a\ufffd" + text[0]).tolist() == [-1, -1, 0]


def test_sentencepiece_round_trip_is_lossless(sentencepiece_model):
    """Codes -> text -> pieces -> text -> codes for 10,000 random rows; the model was trained on few of the codes."""
    of = Scheme.of(4, 256, "all", "interleaved")
    random = np.random.default_rng(1)
    seen = [of.units(random.integers(0, 40, (100, 4)))[0] for _ in range(40)]
    model = sentencepiece_model([to_characters(units) for units in seen], vocab_size=1300, codes=1024)
    for _ in range(10_000):
        codes = random.integers(0, 256, (random.integers(0, 40), 4))
        text = to_characters(of.units(codes)[0])
        pieces = model.encode(text)
        assert len(pieces) <= len(text)
        np.testing.assert_array_equal(of.codes([from_characters(model.decode(pieces))]), codes)
