"""Stored archives, zip and tar: members, slices, and agreement with fairseq."""

import gzip
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest

from bridle_fairseq.data.audio.decode import DecodeError, read_crop, read_info
from bridle_fairseq.data.manifests import archive as archive_module
from bridle_fairseq.data.manifests.archive import Slice, archive_members, members, split_slice
from bridle_fairseq.utils.errors import InputError


def archive_of(path, names, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.mkdir("empty") if hasattr(file, "mkdir") else None
        for name in names:
            file.write(path.parent / name, name)
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_member_decodes_like_the_file(tmp_path, write_sound, name):
    write_sound("first.wav", 999)
    write_sound(name, 4000)
    archive = archive_of(tmp_path / "x y.zip", ["first.wav", name])
    [(_, _, _), (member, offset, length)] = members(archive)
    assert member == name and Slice(str(archive), offset, length).read() == (tmp_path / name).read_bytes()
    sliced = f"{archive}:{offset}:{length}"
    assert read_info(sliced) == read_info(str(tmp_path / name))
    assert np.array_equal(read_crop(sliced, 16000, 100, 800), read_crop(str(tmp_path / name), 16000, 100, 800))


@pytest.fixture
def requests(monkeypatch):
    """Sizes of all reads from archives."""
    sizes = []

    def pread(handle, size, offset):
        sizes.append(size)
        return original(handle, size, offset)

    original = os.pread
    monkeypatch.setattr(archive_module.os, "pread", pread)
    return sizes


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_long_member_is_read_partially(tmp_path, write_sound, requests, name):
    """Reads one second of ten minutes."""
    write_sound(name, 600 * 16000)
    [(_, offset, length)] = members(archive_of(tmp_path / "x.zip", [name]))
    crop = read_crop(f"{tmp_path}/x.zip:{offset}:{length}", 16000, 300 * 16000, 16000)
    assert np.array_equal(crop, read_crop(str(tmp_path / name), 16000, 300 * 16000, 16000))
    assert 0 < sum(requests) < length / 4 and len(requests) < 15


def test_short_member_is_one_read(tmp_path, write_sound, requests):
    write_sound("a.flac", 30000)
    [(_, offset, length)] = members(archive_of(tmp_path / "x.zip", ["a.flac"]))
    read_crop(f"{tmp_path}/x.zip:{offset}:{length}", 16000)
    assert requests == [length]


@pytest.mark.parametrize("ahead", [7, 1 << 18])
def test_slice_as_file(tmp_path, monkeypatch, ahead):
    monkeypatch.setattr(archive_module, "READ_WHOLE", 7)
    monkeypatch.setattr(archive_module, "READ_AHEAD", ahead)
    (tmp_path / "x.zip").write_bytes(b"before" + bytes(range(100)) + b"after")
    with Slice(str(tmp_path / "x.zip"), 6, 100) as file:
        assert file.read(20) == bytes(range(20)) and file.tell() == 20
        assert file.seek(-2, os.SEEK_END) == 98 and file.read() == bytes([98, 99]) and file.read(5) == b""
        assert file.seek(50) == 50 and file.seek(-10, os.SEEK_CUR) == 40 and file.read(1) == bytes([40])
    with pytest.raises(ValueError, match="bytes 6 to 206 are not in the archive"):
        Slice(str(tmp_path / "x.zip"), 6, 200)


def test_member_with_extra_field(tmp_path):
    member = zipfile.ZipInfo("a.wav")
    member.extra = b"\x99\x99\x04\x00abcd"
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(member, b"the sound")
    [(_, offset, length)] = members(tmp_path / "x.zip")
    assert Slice(str(tmp_path / "x.zip"), offset, length).read() == b"the sound"


def test_fairseq_reads_the_same_slice(tmp_path, write_sound):
    audio_utils = pytest.importorskip("fairseq.data.audio.audio_utils")
    write_sound("a.wav")
    [(_, offset, length)] = members(archive_of(tmp_path / "x.zip", ["a.wav"]))
    path, offsets = audio_utils.parse_path(f"{tmp_path}/x.zip:{offset}:{length}")
    assert (path, tuple(offsets)) == split_slice(f"{tmp_path}/x.zip:{offset}:{length}")
    assert audio_utils.read_from_stored_zip(path, *offsets) == (tmp_path / "a.wav").read_bytes()


def test_split_slice():
    assert split_slice("a/x.zip:3:14") == ("a/x.zip", (3, 14))
    assert split_slice("a/X.ZIP:3:14")[1] == (3, 14)
    for plain in ("a.wav", "odd:3:14.wav", "x.zip", "x.zip:3", "tape 3:14", "x.zip:1:" + 5000 * "9", "x.zip:\u0663:1"):
        assert split_slice(plain) == (plain, None)


def test_compressed_member(tmp_path, write_sound):
    write_sound("a.wav")
    archive = archive_of(tmp_path / "x.zip", ["a.wav"], zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match=r"x\.zip: 'a\.wav' is compressed.*stored"):
        list(members(archive))


def test_not_an_archive(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(InputError, match=r"x\.zip: cannot read this archive"):
        list(members(tmp_path / "x.zip"))


def test_slice_beyond_the_end(tmp_path, write_sound):
    write_sound("a.wav")
    archive = archive_of(tmp_path / "x.zip", ["a.wav"])
    with pytest.raises(DecodeError, match="not in the archive"):
        read_info(f"{archive}:100:99999999")
    for offset, length in ((0, 10**18 - 1), (10**18 - 1, 1)):  # neither allocated nor beyond what a system call takes
        with pytest.raises(ValueError, match="not in the archive"):
            Slice(str(archive), offset, length)


def tar_of(path, contents):
    with tarfile.open(path, "w") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                (info.type,), info.linkname = content, "../../elsewhere"
                archive.addfile(info)


def test_members_of_a_tar_archive(tmp_path):
    types = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "folder": tarfile.DIRTYPE}
    kinds = {name: (kind,) for name, kind in types.items()}
    tar_of(tmp_path / "x.tar", {"a.wav": b"one", "../b.wav": b"three", **kinds, "c" * 300: b""})
    found = list(archive_members(tmp_path / "x.tar"))
    plain = {name: place for name, *place in found if len(place) == 2}
    assert list(plain) == ["a.wav", "../b.wav", "c" * 300]
    with open(tmp_path / "x.tar", "rb") as file:
        offset, length = plain["../b.wav"]
        assert file.read()[offset : offset + length] == b"three"
    assert {name: reason[0].split(" in ")[0] for name, *reason in found if len(reason) == 1} == {
        "link": "a link",
        "hard": "a link",
        "device": "a device",
    }


def test_tar_archives_that_cannot_be_used(tmp_path):
    tar_of(tmp_path / "x.tar", {"a": b"one"})
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress((tmp_path / "x.tar").read_bytes()))
    with pytest.raises(InputError, match=r"x\.tar\.gz: a compressed archive; expected \.tar"):
        list(archive_members(tmp_path / "x.tar.gz"))
    (tmp_path / "y.tar").write_bytes((tmp_path / "x.tar.gz").read_bytes())
    (tmp_path / "z.tar").write_bytes(b"no archive" * 100)
    for name in "yz":
        with pytest.raises(InputError, match=rf"{name}\.tar: cannot read this archive"):
            list(archive_members(tmp_path / f"{name}.tar"))


def test_slice_of_a_tar_archive():
    assert split_slice("/d/x.TAR:12:3") == ("/d/x.TAR", (12, 3)) and split_slice("/d/x.tar") == ("/d/x.tar", None)
