"""Finding media files and reading their sizes."""

import os
import tarfile
import zipfile

import pytest

from bridle_fairseq.data.audio.modality import AudioModality
from bridle_fairseq.prepare.scan import find_files, list_source, read_sizes
from bridle_fairseq.utils.errors import InputError

MODALITY = AudioModality()


def names(files):
    return [file.name for file in files]


def test_folder_with_links_and_cycles(tmp_path, write_sound):
    for name in ("data/b.wav", "data/a/z.FLAC", "data/a/notes.txt", "elsewhere/c.wav"):
        write_sound(name) if not name.endswith("txt") else (tmp_path / name).write_text("no sound")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "link")
    os.symlink(tmp_path / "data", tmp_path / "data" / "a" / "circle")
    root, files = find_files(tmp_path / "data", MODALITY.extensions)
    assert root == str(tmp_path / "data") and names(files) == ["a/z.FLAC", "b.wav", "link/c.wav"]
    assert names(find_files(tmp_path / "data", ["flac"])[1]) == ["a/z.FLAC"]
    assert names(find_files(tmp_path / "data", [".wav"], path_must_contain="ink/")[1]) == ["link/c.wav"]


def test_archive(tmp_path, write_sound):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("b.wav", "a/c.wav", "d.txt"):
            write_sound("t.wav", 100 * len(name))
            archive.write(tmp_path / "t.wav", name)
    root, files = find_files(tmp_path / "x.zip", MODALITY.extensions)
    assert root == str(tmp_path) and names(files) == ["a/c.wav", "b.wav"]
    assert read_sizes(root, files, MODALITY.measure).sizes == [700, 500]


def test_no_files(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"no file found with extension \.wav, .*\.tta; it has 1 \.txt$"):
        find_files(tmp_path, MODALITY.extensions)
    with pytest.raises(InputError, match=r"extension \.txt and 'dog' in the path"):
        find_files(tmp_path, ["txt"], "dog")
    for nowhere in ("none", "a.txt"):
        with pytest.raises(InputError, match=rf"{nowhere}: no such folder or \.zip or \.tar archive"):
            find_files(tmp_path / nowhere, MODALITY.extensions)


def test_unreadable_files_are_collected(tmp_path, write_sound, monkeypatch):
    monkeypatch.setattr("bridle_fairseq.prepare.scan.FILES_AT_ONCE", 2)
    for number, frames in enumerate([10, 20, 0, 30]):
        write_sound(f"{number}.wav", frames)
    (tmp_path / "4.wav").write_bytes(b"junk")
    write_sound("5\t.wav", 10)
    done = []
    scan = read_sizes(*find_files(tmp_path, MODALITY.extensions), MODALITY.measure, workers=2, progress=done.append)
    assert names(scan.files) == ["0.wav", "1.wav", "3.wav"] and scan.sizes == [10, 20, 30]
    assert [os.path.basename(path) for path, _ in scan.failures] == ["2.wav", "4.wav", "5\t.wav"]
    assert "no samples" in scan.failures[0][1] and "tab" in scan.failures[2][1] and done == [2, 2, 2]


def test_name_that_is_not_utf8(tmp_path):
    try:
        with open(os.path.join(os.fsencode(tmp_path), b"\xff.wav"), "wb"):
            pass
    except OSError:
        pytest.skip("this file system has no such names")
    scan = read_sizes(*find_files(tmp_path, MODALITY.extensions), MODALITY.measure)
    assert scan.files == [] and "UTF-8" in scan.failures[0][1]


def test_shards_of_a_folder(tmp_path, write_sound):
    """In the layout of WebDataset; members that are no plain files are failures."""
    (tmp_path / "in").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "in" / f"{shard}.tar", "w") as archive:
            for name in ("a.wav", "b.wav"):
                write_sound("t.wav", 100 * (1 + shard) + ord(name[0]))
                archive.add(tmp_path / "t.wav", name)
            archive.add(__file__, "text.wav")
            link = tarfile.TarInfo("c.wav")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    write_sound("in/d.wav", 10)
    listed = list_source(tmp_path / "in")
    assert names(listed.files) == [f"{n}.tar/{name}.wav" for n in range(2) for name in ("a", "b", "text")] + ["d.wav"]
    assert [path.rpartition("/")[2] for path, reason in listed.failures if "a link" in reason] == ["c.wav", "c.wav"]
    scan = read_sizes(listed.root, listed.files, MODALITY.measure)
    assert scan.sizes == [197, 198, 297, 298, 10]
    assert [path.endswith(f" ({n}.tar/text.wav)") for n, (path, _) in enumerate(scan.failures)] == [True, True]
    assert scan.files[0].path.startswith("0.tar:") and scan.files[0].path.endswith(":438")
    alone = list_source(tmp_path / "in" / "1.tar")
    assert names(alone.files) == ["a.wav", "b.wav", "text.wav"] and alone.root == str(tmp_path / "in")


def test_folder_that_cannot_be_listed_is_a_failure(tmp_path, write_sound, monkeypatch):
    write_sound("a.wav")
    write_sound("closed/b.wav")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may list all folders
    listed = list_source(tmp_path)
    assert names(listed.files) == ["a.wav"]
    assert listed.failures == [(str(tmp_path / "closed"), "a folder that cannot be listed: Permission denied")]
