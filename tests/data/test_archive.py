"""Stored zip archives: members, their offsets, and the same archive as fairseq reads it."""

import zipfile

import numpy as np
import pytest

from bridle_fairseq.data.archive import members, read_slice, split_slice
from bridle_fairseq.data.decode import DecodeError, read_crop, read_info
from bridle_fairseq.errors import InputError


def archive_of(path, names, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.mkdir("empty") if hasattr(file, "mkdir") else None
        for name in names:
            file.write(path.parent / name, name)
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_member_reads_as_the_file_does(tmp_path, write_sound, name):
    write_sound("first.wav", 999)
    write_sound(name, 4000)
    archive = archive_of(tmp_path / "x y.zip", ["first.wav", name])
    [(_, _, _), (found, offset, length)] = members(archive)
    assert found == name and read_slice(archive, offset, length) == (tmp_path / name).read_bytes()
    sliced = f"{archive}:{offset}:{length}"
    assert read_info(sliced) == read_info(str(tmp_path / name))
    assert np.array_equal(read_crop(sliced, 16000, 100, 800), read_crop(str(tmp_path / name), 16000, 100, 800))


def test_a_member_with_an_extra_field_begins_behind_it(tmp_path):
    member = zipfile.ZipInfo("a.wav")
    member.extra = b"\x99\x99\x04\x00abcd"
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(member, b"the sound")
    [(_, offset, length)] = members(tmp_path / "x.zip")
    assert read_slice(tmp_path / "x.zip", offset, length) == b"the sound"


def test_fairseq_reads_the_same_slice(tmp_path, write_sound):
    audio_utils = pytest.importorskip("fairseq.data.audio.audio_utils")
    write_sound("a.wav")
    [(_, offset, length)] = members(archive_of(tmp_path / "x.zip", ["a.wav"]))
    path, piece = audio_utils.parse_path(f"{tmp_path}/x.zip:{offset}:{length}")
    assert (path, tuple(piece)) == split_slice(f"{tmp_path}/x.zip:{offset}:{length}")
    assert audio_utils.read_from_stored_zip(path, *piece) == (tmp_path / "a.wav").read_bytes()


def test_only_slices_are_taken_apart():
    assert split_slice("a/x.zip:3:14") == ("a/x.zip", (3, 14))
    assert split_slice("a/X.ZIP:3:14")[1] == (3, 14)
    for plain in ("a.wav", "odd:3:14.wav", "x.zip", "x.zip:3", "tape 3:14"):
        assert split_slice(plain) == (plain, None)


def test_a_compressed_member_is_an_error_that_names_it(tmp_path, write_sound):
    write_sound("a.wav")
    archive = archive_of(tmp_path / "x.zip", ["a.wav"], zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match=r"x\.zip: 'a\.wav' is compressed.*stored"):
        list(members(archive))


def test_what_is_no_archive_is_an_error(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(InputError, match=r"x\.zip: cannot read this archive"):
        list(members(tmp_path / "x.zip"))


def test_a_slice_beyond_the_end_is_unreadable(tmp_path, write_sound):
    write_sound("a.wav")
    archive = archive_of(tmp_path / "x.zip", ["a.wav"])
    with pytest.raises(DecodeError, match="not in the archive"):
        read_info(f"{archive}:100:99999999")
