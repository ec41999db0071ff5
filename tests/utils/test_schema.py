from dataclasses import dataclass

import pytest

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.schema import (
    Flag,
    ListOf,
    Mapped,
    OneOf,
    Real,
    String,
    Whole,
    check,
    check_product,
    described,
    record_of,
    shown,
)

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Whole(0, 9), [0, 9], [-1, 10, 2**70, 1.0, True, "1", None, [1]]),
        (Real(0, 1), [0, 1, 0.5], [-1e-9, 1.1, NAN, INFINITY, -INFINITY, True, "0.5", None, 2**70]),
        (Real(0, 1, above=True, below=True), [0.5], [0, 1, 0.0, 1.0]),
        (OneOf(("a", "b")), ["a"], ["c", "", None, ["a"], 1]),
        (Flag(), [True, False], [0, 1, "true", None]),
        (String(3), ["", "abc"], ["abcd", 1, None, ["a"]]),
        (ListOf(Whole(0, 9), 1, 2), [[0], [0, 9], (1, 2)], [[], [1, 2, 3], [1.0], [[1]], "12", 1, None, {0: 1}]),
        (Mapped({"a": Flag()}, {"b": Whole(0, 9)}), [{"a": True}, {"a": True, "b": 1}], [{}, {"a": 1}, [], None]),
        (Mapped({"a": Flag()}), [{"a": True}], [{"a": True, "b": 1}, {"a": True, 1: 1}]),
        (Mapped({}, others=Whole(0, 9)), [{"x": 1}], [{"x": "1"}, {1: 1}]),
    ],
)
def test_kinds_accept_exact_types_within_bounds(kind, good, bad) -> None:
    for value in good:
        check(kind, "x", value)
    for value in bad:
        with pytest.raises(InputError, match="expected"):
            check(kind, "x", value)


def test_message_names_file_field_value_and_bounds() -> None:
    kind = Mapped({"sizes": ListOf(Whole(1, 9), 1, 3)})
    with pytest.raises(InputError, match=r"^f\.json: sizes\[1\] is 10; expected at least 1 and at most 9, a whole"):
        check(kind, "", {"sizes": [1, 10]}, "f.json")


def test_record_of_a_dataclass_requires_fields_without_default() -> None:
    @dataclass
    class Info:
        rows: int = described(Whole(1, 9))
        version: int = described(Whole(1, 1), default=1)

    check(record_of(Info), "", {"rows": 3})
    with pytest.raises(InputError, match=r"^rows is missing"):
        check(record_of(Info), "", {"version": 1})


def test_any_value_is_shown_shortly() -> None:
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, 10**4000, "x" * 10**6, {"a": deep}, ["x" * 1000] * 1000):
        assert len(shown(value)) < 600


def test_products_have_a_limit() -> None:
    check_product(12, {"a": 3, "b": 4})
    with pytest.raises(InputError, match="^a 3 and b 5; expected a product of at most 12$"):
        check_product(12, {"a": 3, "b": 5})
