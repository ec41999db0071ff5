"""Rows that are parsed many at a time are those that are parsed one by one."""

import io
import random

import numpy as np
import pytest

from bridle_fairseq.data.manifests import manifest as manifest_module
from bridle_fairseq.data.manifests.manifest import Manifest, parse_rows, whole_lines
from bridle_fairseq.utils.errors import InputError


def rows(count, seed=0):
    """Names of all kinds, sizes of all lengths."""
    choose = random.Random(seed)
    letters = "aé漢🎵 .-_/#0123456789"
    names = ["".join(choose.choices(letters, k=choose.randint(1, 30))) for _ in range(count)]
    return names, [choose.randint(1, 10 ** choose.randint(1, 18) - 1) for _ in range(count)]


def text_of(names, sizes):
    return "".join(f"{name}\t{size}\n" for name, size in zip(names, sizes, strict=True)).encode()


@pytest.mark.parametrize("last", ["\n", ""])
def test_parsed_at_once(last) -> None:
    names, sizes = rows(200)
    found = parse_rows(text_of(names, sizes)[:-1] + last.encode())
    assert found is not None
    assert found.text == "".join(names).encode() and found.sizes.tolist() == sizes
    assert found.ends.tolist() == np.cumsum([len(name.encode()) for name in names]).tolist()


@pytest.mark.parametrize("block", [1, 7, 100, 1 << 24])
def test_blocks_of_any_size_and_single_lines_give_the_same_manifest(tmp_path, monkeypatch, block) -> None:
    names, sizes = rows(300, seed=1)
    (tmp_path / "x.tsv").write_bytes(b"/root\n" + text_of(names, sizes))
    monkeypatch.setattr(manifest_module, "BYTES_AT_ONCE", block)
    found = Manifest.read(tmp_path / "x.tsv")
    monkeypatch.setattr(manifest_module, "parse_rows", lambda text: None)
    one_by_one = Manifest.read(tmp_path / "x.tsv")
    made = Manifest("/root", names, sizes)
    assert list(found) == list(one_by_one) == list(made) == list(zip(names, sizes, strict=True))
    assert found.fingerprint() == one_by_one.fingerprint() == made.fingerprint()


def test_blocks_end_with_lines(monkeypatch) -> None:
    monkeypatch.setattr(manifest_module, "BYTES_AT_ONCE", 5)
    text = b"ab\t1\ncdefghi\t2\n\nlast\t3"
    found = list(whole_lines(io.BytesIO(text)))
    assert b"".join(found) == text and all(block.endswith(b"\n") for block in found[:-1]) and len(found) > 1


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
        b"\xff\t1",
    ],
)
def test_lines_of_another_kind_are_left_to_a_closer_look(line) -> None:
    for text in (line + b"\n", b"good\t1\n" + line + b"\nb\t2\n"):
        assert parse_rows(text) is None
    assert not line or parse_rows(b"good\t1\n" + line) is None


def test_the_line_of_a_mistake_is_counted_over_blocks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(manifest_module, "BYTES_AT_ONCE", 64)
    names, sizes = rows(100)
    text = text_of(names, sizes) + b"wrong\tx\n" + text_of(names, sizes)
    (tmp_path / "x.tsv").write_bytes(b"/root\n" + text)
    with pytest.raises(InputError, match="line 102: size 'x'"):
        Manifest.read(tmp_path / "x.tsv")
