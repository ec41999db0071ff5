"""One line and exit code 2 for an error that a user can fix."""

import errno

import pytest

from bridle_fairseq.utils.errors import InputError, exit_on_input_error, sentence_of


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (InputError("no such thing"), "no such thing"),
        (PermissionError(errno.EACCES, "Permission denied", "out/x"), "out/x: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", b"/a\xff"), "/a\udcff: Read-only file system"),
        (MemoryError(), "not enough memory"),
        (MemoryError("Unable to allocate 8 GiB"), "not enough memory: Unable to allocate 8 GiB"),
        (OSError("no file is named"), None),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), None),
        (ValueError("a bug"), None),
    ],
)
def test_sentence_for_what_a_user_can_fix(error, sentence):
    assert sentence_of(error) == sentence


def test_full_disk_states_the_space_left(tmp_path):
    sentence = sentence_of(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "not" / "there" / "x")))
    beginning, _, rest = sentence.partition(" (")
    assert beginning == f"{tmp_path}/not/there/x: No space left on device"
    free, _, folder = rest.partition(" bytes are free in ")
    assert folder == f"{tmp_path})" and int(free.replace(",", "")) > 0


@pytest.mark.parametrize(("system", "is_said"), [("ascii", True), ("utf-8", False)])
def test_name_beyond_the_file_system_encoding_is_said(monkeypatch, system, is_said):
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: system)
    error = UnicodeEncodeError(system, "ä.wav", 0, 1, "ordinal not in range(128)")
    expected = r"'\xe4.wav': no name for a file in ascii; expected a UTF-8 locale, or PYTHONUTF8=1"
    assert sentence_of(error) == (expected if is_said else None)


def test_limit_of_open_files_is_stated():
    assert "ulimit -n" in sentence_of(OSError(errno.EMFILE, "Too many open files"))


@pytest.mark.parametrize("error", [InputError("no such thing"), FileNotFoundError(2, "No such file", "x")])
def test_input_error_becomes_exit_code_2(capsys, error):
    with pytest.raises(SystemExit) as end, exit_on_input_error():
        raise error
    assert end.value.code == 2
    assert capsys.readouterr().err == f"bridle_fairseq: error: {sentence_of(error)}\n"


def test_bug_passes_through():
    with pytest.raises(OSError, match="no file is named"), exit_on_input_error():
        raise OSError("no file is named")


def test_names_in_files_cannot_command_a_terminal():
    error = InputError("caf\u00e9\x1b[2J\n\u2028\udcff.tsv: no such file")
    assert str(error) == sentence_of(error) == "caf\u00e9\\x1b[2J\\n\\u2028\\udcff.tsv: no such file"
