"""Vectorized parsing of manifest rows gives the same result as line by line."""

import io
import random

import numpy as np
import pytest

from bridle_fairseq.data.manifests import manifest as manifest_module
from bridle_fairseq.data.manifests.manifest import Manifest, parse_rows, whole_lines
from bridle_fairseq.utils.errors import InputError


def rows(count, seed=0):
    """Random names and sizes of all lengths."""
    choose = random.Random(seed)
    letters = "aé漢🎵 .-_/#0123456789"
    names = ["".join(choose.choices(letters, k=choose.randint(1, 30))) for _ in range(count)]
    return names, [choose.randint(1, 10 ** choose.randint(1, 12) - 1) for _ in range(count)]


def text_of(names, sizes):
    return "".join(f"{name}\t{size}\n" for name, size in zip(names, sizes, strict=True)).encode()


@pytest.mark.parametrize("last", ["\n", ""])
def test_parse_rows(last) -> None:
    names, sizes = rows(200)
    parsed = parse_rows(text_of(names, sizes)[:-1] + last.encode())
    assert parsed is not None
    assert parsed.text == "".join(names).encode() and parsed.sizes.tolist() == sizes
    assert parsed.ends.tolist() == np.cumsum([len(name.encode()) for name in names]).tolist()


@pytest.mark.parametrize("read_size", [1, 7, 100, 1 << 24])
def test_read_size_does_not_change_the_manifest(tmp_path, monkeypatch, read_size) -> None:
    names, sizes = rows(300, seed=1)
    (tmp_path / "x.tsv").write_bytes(b"/root\n" + text_of(names, sizes))
    monkeypatch.setattr(manifest_module, "BYTES_AT_ONCE", read_size)
    at_once = Manifest.read(tmp_path / "x.tsv")
    monkeypatch.setattr(manifest_module, "parse_rows", lambda text: None)
    line_by_line = Manifest.read(tmp_path / "x.tsv")
    expected = Manifest("/root", names, sizes)
    assert list(at_once) == list(line_by_line) == list(expected) == list(zip(names, sizes, strict=True))
    assert at_once.fingerprint() == line_by_line.fingerprint() == expected.fingerprint()


def test_whole_lines(monkeypatch) -> None:
    monkeypatch.setattr(manifest_module, "BYTES_AT_ONCE", 5)
    text = b"ab\t1\ncdefghi\t2\n\nlast\t3"
    texts = list(whole_lines(io.BytesIO(text)))
    assert b"".join(texts) == text and all(some.endswith(b"\n") for some in texts[:-1]) and len(texts) > 1


@pytest.mark.parametrize(
    "line",
    [
        b"a",
        b"",
        b"\t1",
        b"a\t",
        b"a\t1\t2",
        b"a\t-1",
        b"a\t0",
        b"a\t1.5",
        b"a\t 1",
        b"a\t1\r",
        b"a\t" + 19 * b"9",
        b"a\t" + 18 * b"9",
        b"a\t2000000000000",
        b"a\x00\t1",
        b"\xff\t1",
    ],
)
def test_invalid_lines_are_not_parsed(line) -> None:
    for text in (line + b"\n", b"good\t1\n" + line + b"\nb\t2\n"):
        assert parse_rows(text) is None
    assert not line or parse_rows(b"good\t1\n" + line) is None


def test_line_number_of_an_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(manifest_module, "BYTES_AT_ONCE", 64)
    names, sizes = rows(100)
    text = text_of(names, sizes) + b"wrong\tx\n" + text_of(names, sizes)
    (tmp_path / "x.tsv").write_bytes(b"/root\n" + text)
    with pytest.raises(InputError, match="line 102: size 'x'"):
        Manifest.read(tmp_path / "x.tsv")
