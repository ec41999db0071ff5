"""Commands as processes: exit codes, signals, closed pipes, full outputs."""

import os
import signal
import subprocess
import sys

import pytest

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.process import run_command, run_script

SCRIPT = """
import sys, time
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.process import run_command

def lines():
    for line in range(100000):
        print(line)

def write():
    with atomic_text("x") as file:
        file.write("begun")
        print("begun", flush=True)
        time.sleep(60)

def opened():
    with open("x", "wb") as file:
        print(file.fileno(), file=sys.stderr)
    print("lost")

sys.exit(run_command("name", {"lines": lines, "write": write, "opened": opened, "one": lambda: print(1)}[sys.argv[1]]))
"""


def start(action, **options):
    command = [sys.executable, "-c", SCRIPT, action]
    options = {"stdout": subprocess.PIPE, "env": {**os.environ, "PYTHONUNBUFFERED": ""}, **options}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_script_error_is_one_line_and_exit_code_2(capsys):
    def fail(args):
        raise InputError("no such thing")

    assert run_script(fail, None) == 2
    assert capsys.readouterr().err.endswith("error: no such thing\n")
    assert run_script(lambda args: None, None) == 0


def test_exit_code_of_the_command():
    assert run_command("name", lambda: 7) == 7 and run_command("name", lambda: None) == 0


def test_reader_that_goes_is_no_error():
    process = start("lines")
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (141, "")


@pytest.mark.parametrize("action", ["lines", "one"])
def test_pipe_without_a_reader_is_no_error(action):
    reader, writer = os.pipe()
    os.close(reader)
    process = start(action, stdout=writer)
    os.close(writer)
    assert (process.stderr.read(), process.wait()) == ("", 141)


def test_broken_pipe_of_another_process_keeps_its_traceback():
    def fail():
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        run_command("name", fail)


@pytest.mark.parametrize("action", ["lines", "one"])
def test_full_output_is_one_sentence(action):
    with open("/dev/full", "w") as full:
        process = start(action, stdout=full)
    line = "name: error: standard output: No space left on device\n"
    assert (process.stderr.read(), process.wait()) == (line, 2)


def test_closed_output_gives_its_number_to_no_file(tmp_path):
    process = start("opened", stdout=None, preexec_fn=lambda: os.close(1), cwd=tmp_path)
    assert int(process.stderr.read()) > 2 and process.wait() == 0
    assert (tmp_path / "x").read_bytes() == b""


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "name: interrupted\n"),
        (signal.SIGTERM, 143, "name: stopped by SIGTERM\n"),
        (signal.SIGHUP, 129, "name: stopped by SIGHUP\n"),
    ],
)
def test_signal_removes_the_temporary_file(tmp_path, number, code, line):
    process = start("write", cwd=tmp_path)
    assert process.stdout.readline() == "begun\n" and len(os.listdir(tmp_path)) == 1
    process.send_signal(number)
    assert (process.stderr.read(), process.wait(), os.listdir(tmp_path)) == (line, code, [])


def test_signal_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)
    run_command("name", lambda: None)
    assert signal.getsignal(signal.SIGTERM) == before


def test_interrupt_that_an_import_replaces_is_one(capsys):
    def command():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy cannot be imported") from None

    former = signal.getsignal(signal.SIGINT)
    try:
        assert run_command("name", command) == 130 and capsys.readouterr().err == "name: interrupted\n"
    finally:
        signal.signal(signal.SIGINT, former)
    with pytest.raises(ImportError):
        run_command("name", lambda: exec("import not_there"))
    assert signal.getsignal(signal.SIGINT) is former
