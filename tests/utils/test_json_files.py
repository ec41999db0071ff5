"""JSON files from strangers: size, depth, numbers and texts are checked."""

import json

import pytest

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.json_files import MAX_BYTES, parse_json, read_description, read_json
from bridle_fairseq.utils.schema import Mapped, Whole

BAD = {
    "deep": b"[" * 100_000,
    "deep and complete": b"[" * 100 + b"]" * 100,
    "deep objects": b'{"a":' * 500 + b"1" + b"}" * 500,
    "long number": b"9" * 5000,
    "infinite": b"1e999",
    "NaN": b'{"a": NaN}',
    "Infinity": b"[-Infinity]",
    "twice": b'{"a": 1, "a": 2}',
    "half a character": b'"\\ud800"',
    "half a character as a name": b'{"\\uDC00": 1}',
    "no UTF-8": b'"\xff"',
    "surrogates in UTF-8": b'"\xed\xa0\x80"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "cut off": b'{"a": ',
    "nothing": b"",
    "many values": b"[" + b"[]," * (1 << 22) + b"1]",
    "many bytes": b'"' + b"x" * MAX_BYTES + b'"',
}


@pytest.mark.parametrize("name", BAD)
def test_bad_json_is_refused_in_one_sentence(tmp_path, name) -> None:
    (tmp_path / "a.json").write_bytes(BAD[name])
    with pytest.raises(InputError, match=r"^\S*a\.json: cannot read these settings: damaged") as error:
        read_json(tmp_path / "a.json", "these settings")
    assert len(str(error.value)) < 600


def test_values_are_those_of_json() -> None:
    value = {"a": [1, -2.5, True, None, "é\U0001f3b5", 10**400], "b": {"c": []}}
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_json(b"[NaN, 1e999]", finite=False)[1] == float("inf")


def test_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"a\.json: cannot read this file: No such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="cannot read this file: Is a directory"):
        read_json(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 2, "rows": 1}, r"x\.json: version 2; expected 1"),
        ({"version": 1}, r"x\.json: cannot read this description of codes: rows is missing; expected at least 0"),
        ({"version": 1, "rows": -1}, r"x\.json: cannot read this description of codes: rows is -1; expected"),
        ([], "the content is"),
    ],
)
def test_descriptions_are_checked(tmp_path, fields, message) -> None:
    (tmp_path / "x.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match=message):
        read_description(tmp_path / "x", "codes", 1, Mapped({"version": Whole(1, 1), "rows": Whole(0, 9)}))
