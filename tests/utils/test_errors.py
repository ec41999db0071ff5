"""One line and exit code 2 for a user's mistake."""

import pytest

from bridle_fairseq.utils.errors import InputError, exit_on_input_error, run_script


def fail(args=None):
    raise InputError("no such thing")


def test_script_error_is_one_line_and_exit_code_2(capsys):
    assert run_script(fail, None) == 2
    assert capsys.readouterr().err.endswith("error: no such thing\n")
    assert run_script(lambda args: None, None) == 0


def test_input_error_becomes_exit_code_2(capsys):
    with pytest.raises(SystemExit) as end, exit_on_input_error():
        fail()
    assert end.value.code == 2
    assert capsys.readouterr().err == "bridle_fairseq: error: no such thing\n"
