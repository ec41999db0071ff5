"""Atomic writes: contents, permissions, and failures."""

import os

import pytest

from bridle_fairseq.utils.files import atomic_binary, atomic_text


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
