"""Labels in files beside the media files."""

import io
import json
import tarfile

import pytest

from bridle_fairseq.prepare.corpus import scan_source
from bridle_fairseq.prepare.siblings import sibling_entries
from bridle_fairseq.utils.errors import InputError


@pytest.fixture
def shard(tmp_path, write_sound):
    """``shard({name: bytes})``: the scan of a tar archive with these files and two sounds."""
    write_sound("t.wav", 100)

    def make(files):
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            for name in ("a/0.wav", "a/1.left.wav"):
                archive.add(tmp_path / "t.wav", name)
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return scan_source(tmp_path / "x.tar", tmp_path / "out")

    return make


def test_labels_beside_the_media(shard):
    files = {"a/0.cls": b"7\n", "a/1.cls": b"3", "a/0.txt": "käse".encode(), "0.cls": b"9"}
    files["a/0.json"], files["a/1.json"] = json.dumps({"k": ["x", 2]}).encode(), json.dumps({"k": 5}).encode()
    scan = shard(files)
    for member, expected in (("cls", [["7"], ["3"]]), ("json:k", [["x", "2"], ["5"]]), (".txt", [["käse"], None])):
        assert [entry and list(entry.labels) for entry in sibling_entries(scan, member)] == expected


@pytest.mark.parametrize(
    ("content", "member", "said"),
    [
        (b"{}", "json:k", r"a/0\.json: no label in it \(no key 'k'\)"),
        (b"{", "json:k", r"a/0\.json: no label in it"),
        (b'{"k": 1.5}', "json:k", r"a/0\.json: '1\.5' as a label; expected a name or number"),
        (b"{}", "json", "expected a key of its objects too"),
        (b"{}", "cls", r"no \.cls file beside a media file"),
    ],
)
def test_mistakes(shard, content, member, said):
    with pytest.raises(InputError, match=said):
        sibling_entries(shard({"a/0.json": content}), member)
