"""Reading, checking and writing manifests."""

import os
import pickle

import numpy as np
import pytest

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError


def test_round_trip(tmp_path):
    rows = [("a b/c  d.wav", 5), (" ü.flac ", 7), ("x.zip:12:99", 2**40)]
    Manifest("/some folder ", *zip(*rows, strict=True)).write(tmp_path / "new" / "train.tsv")
    assert (tmp_path / "new" / "train.tsv").read_text(encoding="utf-8").splitlines()[1] == "a b/c  d.wav\t5"
    manifest = Manifest.read(tmp_path / "new" / "train.tsv")
    assert list(manifest) == rows and manifest.root == "/some folder " and len(manifest) == 3
    assert manifest.sizes.dtype == np.int64 and manifest.path(1) == "/some folder / ü.flac "
    assert list(pickle.loads(pickle.dumps(manifest))) == rows
    with pytest.raises(IndexError):
        manifest.relative_path(3)


def test_crlf_line_ends(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b"/r\r\na.wav\t5\r\n")
    manifest = Manifest.read(tmp_path / "x.tsv")
    assert manifest.root == "/r" and list(manifest) == [("a.wav", 5)]


@pytest.mark.parametrize("root", ["", "media"])
def test_relative_root(tmp_path, monkeypatch, root):
    (tmp_path / "m").mkdir()
    Manifest(root, ["a.wav"], [1]).write(tmp_path / "m" / "x.tsv")
    monkeypatch.chdir(tmp_path)
    assert Manifest.read("m/x.tsv").path(0) == os.path.join(tmp_path, "m", root, "a.wav")


@pytest.mark.parametrize(
    "content,said",
    [
        (b"", "no rows"),
        (b"/root\n", "no rows"),
        (b"/root\na.wav 100\n", "line 2: 1 column in 'a.wav 100'; expected 2"),
        (b"/root\na.wav\t1\nb.wav\t2\t3\n", "line 3: 3 columns"),
        (b"/root\na.wav\t1\n\n", "line 3: 1 column in ''"),
        (b"/root\n\t5\n", "line 2"),
        (b"/root\na.wav\tten\n", "line 2: size 'ten'"),
        (b"/root\na.wav\t1.5\n", "line 2: size '1.5'"),
        (b"/root\na.wav\t-5\n", "line 2: size '-5'"),
        (b"/root\na.wav\t0\n", "line 2: size '0'"),
        (b"/root\na.wav\t99999999999999999999\n", "line 2: size"),
        (
            b"/root\na.wav\t1\nb.wav\t9223372036854775807\n",
            "line 3: size '9223372036854775807'",
        ),
        (b"/root\na.wav\t1099511627777\n", "at most 1099511627776"),
        (b"/root\na.wav\t" + 5000 * b"9" + b"\n", "line 2: size '999"),
        (b"/root\na\0.wav\t1\n", "line 2: 'a\\x00.wav' is no path"),
        (b"/root\n" + 5000 * b"a" + b"\t1\n", "line 2: 'aaa"),
        (b"/ro\0ot\na.wav\t1\n", "line 1: '/ro\\x00ot'; expected the root folder"),
        (b"/root\n\xff.wav\t5\n", "line 2: b'\\xff.wav\\t5\\n' is not UTF-8"),
        (b"a.wav\t5\nb.wav\t5\n", "line 1: 'a.wav\\t5'; expected the root folder"),
    ],
)
def test_bad_manifest(tmp_path, content, said):
    path = tmp_path / "bad.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        Manifest.read(path)
    assert str(error.value).startswith(str(path)) and said in str(error.value) and "\n" not in str(error.value)


def test_missing_manifest(tmp_path):
    with pytest.raises(InputError, match="none.tsv: cannot read this manifest: No such file"):
        Manifest.read(tmp_path / "none.tsv")
    with pytest.raises(InputError, match="cannot read this manifest"):
        Manifest.read(tmp_path)


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.tsv"
    Manifest("/r", ["a.wav"], [1]).write(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="tab"):
        Manifest("/r", ["b.wav", "c\t.wav"], [1, 2]).write(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.tsv"]
    with pytest.raises(InputError, match="root folder"):
        Manifest("/r\tx", ["b.wav"], [1]).write(path)


def test_select_keeps_order_and_source(make_manifest):
    manifest = make_manifest([3, 4, 5])
    chosen = manifest.select([2, 0])
    assert list(chosen) == [("2.wav", 5), ("0.wav", 3)] and chosen.path(0) == manifest.path(2)
    assert [chosen.line(row) for row in range(2)] == [4, 2] and chosen.select([0]).line(0) == 4
    os.unlink(chosen.path(0))
    with pytest.raises(InputError, match="line 4: no such file: .*2.wav"):
        chosen.check_files()


def test_fingerprint_ignores_the_root():
    first = Manifest("/a", ["x", "y"], [1, 2]).fingerprint()
    assert first == Manifest("/elsewhere", ["x", "y"], [1, 2]).fingerprint()
    others = [(["y", "x"], [1, 2]), (["x", "y"], [1, 3]), (["xy", ""], [1, 2]), (["x", "y", "z"], [1, 2, 3])]
    assert len({first, *(Manifest("/a", *other).fingerprint() for other in others)}) == 5


def test_missing_file(make_manifest, tmp_path):
    manifest = make_manifest([8, 8, 8])
    manifest.check_files()
    (tmp_path / "1.wav").unlink()
    with pytest.raises(InputError, match=r"train.tsv, line 3: no such file: .*1\.wav"):
        manifest.check_files()


def test_slices_need_only_their_archive(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"")
    Manifest(tmp_path, ["x.zip:0:5", "x.zip:5:5"], [1, 1]).check_files()
    with pytest.raises(InputError, match=r"no such file: .*y\.zip$"):
        Manifest(tmp_path, ["x.zip:0:5", "y.zip:5:5"], [1, 1]).check_files()


def test_huge_manifest_is_sampled(monkeypatch):
    looked_at = []
    monkeypatch.setattr(os.path, "isfile", lambda path: looked_at.append(path) or True)
    monkeypatch.setattr("bridle_fairseq.data.manifests.manifest.CHECK_ALL_UP_TO", 5)
    Manifest("/r", [str(row) for row in range(9)], [1] * 9).check_files()
    assert looked_at == ["/r/0", "/r/2", "/r/4", "/r/6", "/r/8"]


def test_memory_per_row():
    manifest = Manifest("/r", (f"folder/{row:07d}.wav" for row in range(20000)), [16000] * 20000)
    assert len(pickle.dumps(manifest)) < 50 * len(manifest)
