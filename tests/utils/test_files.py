"""Atomic writes: contents, permissions, failures, and what killed processes leave."""

import errno
import fcntl
import os
import resource
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bridle_fairseq.utils import files
from bridle_fairseq.utils.errors import InputError, sentence_of
from bridle_fairseq.utils.files import atomic_binary, atomic_text, check_writable, locked, size_text, temporary_folder


@pytest.fixture
def umask():
    """Removes write access for the group and all access for others."""
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize(("write", "content"), [(atomic_text, "é\n"), (atomic_binary, b"\xff\n")])
def test_file_appears_when_complete(tmp_path, umask, write, content):
    path = tmp_path / "new" / "a"
    with write(path) as file:
        file.write(content)
        assert not path.exists()
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert path.stat().st_mode & 0o777 == 0o640 and os.listdir(path.parent) == ["a"]


@pytest.mark.parametrize("write", [atomic_text, atomic_binary])
def test_failed_write_keeps_the_old_file(tmp_path, write):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), write(tmp_path / "a"):
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


@pytest.fixture
def small_files():
    """The largest size of a file that this process writes is 100 kB; Python gives EFBIG for SIGXFSZ."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)


WRITERS = {
    "write": lambda file: file.write(bytes(1_000_000)),
    "numpy": lambda file: np.save(file, np.zeros(125_000)),
    "npz": lambda file: np.savez(file, a=np.zeros(125_000)),
    "tofile": lambda file: np.zeros(125_000).tofile(file),
    "torch": lambda file: torch.save(torch.zeros(250_000), file),
    "torch by name": lambda file: torch.save(torch.zeros(250_000), file.name),
    "safetensors": lambda file: save_file({"a": torch.zeros(250_000)}, file.name),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_names_the_file_whatever_library_writes(tmp_path, small_files, writer):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError) as failed, atomic_binary(tmp_path / "a") as file:
        WRITERS[writer](file)
    assert failed.value.errno == errno.EFBIG
    assert (
        sentence_of(failed.value) == f"{tmp_path}/a: File too large (the limit of a file is 100,000 bytes: ulimit -f)"
    )
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_full_disk_names_the_folder(tmp_path, small_files):
    with pytest.raises(OSError) as failed, temporary_folder(tmp_path / "a") as folder:
        save_file({"a": torch.zeros(250_000)}, folder / "weights")
    assert (failed.value.errno, failed.value.filename) == (errno.EFBIG, f"{tmp_path}/a") and os.listdir(tmp_path) == []


def test_temporary_folder_is_moved_or_removed(tmp_path):
    for name in ("moved", "left"):
        with temporary_folder(tmp_path / name) as folder:
            (folder / "x").touch()
            if name == "moved":
                os.replace(folder, tmp_path / name)
    assert os.listdir(tmp_path) == ["moved"] and os.listdir(tmp_path / "moved") == ["x"]


def test_text_that_fails_at_its_end_names_the_file(tmp_path, small_files):
    with pytest.raises(OSError) as failed, atomic_text(tmp_path / "a") as file:
        file.write("x" * 100_001)
    assert failed.value.filename == f"{tmp_path}/a" and os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [InputError("bad"), ValueError("a bug"), ConnectionResetError("no number")])
def test_other_errors_pass(tmp_path, error):
    with pytest.raises(type(error)) as failed, atomic_binary(tmp_path / "a"):
        raise error
    assert failed.value is error and os.listdir(tmp_path) == []


def test_folder_that_cannot_be_written_gives_the_files_own_name(tmp_path, monkeypatch):
    def refuse(path, *options):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(PermissionError) as failed, atomic_binary(tmp_path / "a"):
        pass
    assert failed.value.filename == f"{tmp_path}/a"


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    (tmp_path / ".a.folder00.tmp" / "x").mkdir(parents=True)
    others = [".b.abcdefgh.tmp", ".a.abcdefgh", "a.abcdefgh.tmp", ".a.backup.tmp"]
    for name in [".a.abcdefgh.tmp", ".a.01234567.tmp", *others]:
        (tmp_path / name).touch()
    with open(tmp_path / ".a.01234567.tmp", "rb") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        with atomic_text(tmp_path / "a") as file:
            file.write("new")
    assert sorted(os.listdir(tmp_path)) == sorted(["a", ".a.01234567.tmp", *others])


def test_unfinished_file_is_locked_until_it_has_its_name(tmp_path, monkeypatch):
    def replace(temporary, path, rename=os.replace):
        with open(temporary, "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        rename(temporary, path)

    monkeypatch.setattr(files.os, "replace", replace)
    with atomic_text(tmp_path / "a") as file:
        file.write("x")
    with open(tmp_path / "a", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_temporary_file_that_is_taken_for_stale_is_made_again(tmp_path, monkeypatch):
    taken = []

    def lock(handle, operation):
        if not taken:
            taken.extend(os.listdir(tmp_path))
            os.unlink(tmp_path / taken[0])

    monkeypatch.setattr(files.fcntl, "flock", lock)
    with atomic_text(tmp_path / "a") as file:
        file.write("x")
    assert taken and (tmp_path / "a").read_text() == "x"


def test_lock_of_a_folder_is_of_one_process_at_a_time(tmp_path, monkeypatch):
    with locked(tmp_path) as first, locked(tmp_path, wait=False) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path, wait=False) as held, locked(tmp_path / "missing") as missing:
        assert (held, missing) == (True, False)

    def refuse(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with locked(tmp_path) as held:
        assert held


@pytest.mark.parametrize(
    ("size", "text"), [(7_300_000, "7.3 MB"), (2_543, "2.5 kB"), (1_000_000, "1.0 MB"), (0, "0.0 kB")]
)
def test_sizes_for_people(size, text):
    assert size_text(size) == text


def test_folder_is_checked_by_a_file_that_does_not_stay(tmp_path, monkeypatch):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(files, "_make_file", refuse)  # root may write everywhere
    with pytest.raises(PermissionError) as error:
        check_writable(tmp_path)
    assert error.value.filename == str(tmp_path)
