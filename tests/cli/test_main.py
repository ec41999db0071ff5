"""The command ``bridle``: subcommands, exit codes, error messages, a fast --help."""

import subprocess
import sys
import types

import pytest

from bridle_fairseq.cli import main
from bridle_fairseq.utils.errors import InputError


@pytest.fixture
def sample(monkeypatch):
    """A subcommand "sample" whose run() is ``sample.action``."""
    name = "bridle_fairseq.cli.sample"
    module = types.ModuleType(name)
    module.HELP = "A sample."
    module.add_arguments = lambda parser: parser.add_argument("--count", type=int, default=1)
    module.action = lambda args: 0
    module.run = lambda args: module.action(args)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(main, "COMMANDS", ("sample",))
    return module


def test_subcommand_arguments_and_exit_code(sample):
    sample.action = lambda args: args.count + 3
    assert main.main(["sample", "--count", "4"]) == 7


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("x.tsv: row 3 has 1 column, expected 2"), "bridle: error: x.tsv: row 3 has 1 column, expected 2\n"),
        (PermissionError(13, "Permission denied", "out/x"), "bridle: error: out/x: Permission denied\n"),
    ],
)
def test_input_error_is_one_line_and_exit_code_2(sample, capsys, error, line):
    def fail(args):
        raise error

    sample.action = fail
    assert main.main(["sample"]) == 2
    assert capsys.readouterr().err == line


def test_full_disk_is_one_line_with_the_space_left(sample, capsys, tmp_path):
    def fail(args):
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    sample.action = fail
    assert main.main(["sample"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"bridle: error: {tmp_path}/x: No space left on device (") and line.count("\n") == 1
    assert f" bytes are free in {tmp_path})" in line


def test_other_errors_keep_their_traceback(sample):
    def fail(args):
        raise OSError("no file is named")

    sample.action = fail
    with pytest.raises(OSError, match="no file is named"):
        main.main(["sample"])


def test_interrupt_is_exit_code_130(sample, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    sample.action = interrupt
    assert main.main(["sample"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["no-such-command"], ["sample", "--count", "many"]])
def test_invalid_command_line_is_exit_code_2(sample, argv):
    with pytest.raises(SystemExit) as end:
        main.main(argv)
    assert end.value.code == 2


def test_no_arguments_print_the_help(capsys):
    assert main.main([]) == 0
    assert capsys.readouterr().out.startswith("usage: bridle ")


@pytest.mark.parametrize("arguments", [["--version"], ["train", "small"]])
def test_the_package_is_the_command(arguments, tmp_path):
    code = "import sys; from bridle_fairseq.cli.main import main; sys.exit(main())"
    runs = [
        subprocess.run([sys.executable, *start, *arguments], capture_output=True, text=True, cwd=tmp_path)
        for start in (["-m", "bridle_fairseq"], ["-c", code])
    ]
    assert [(run.returncode, run.stdout, run.stderr) for run in runs[:1]] == [
        (run.returncode, run.stdout, run.stderr) for run in runs[1:]
    ]


def test_help_lists_all_commands_without_slow_imports():
    code = (
        "import sys\n"
        "from bridle_fairseq.cli import main\n"
        "text = main.build_parser().format_help()\n"
        "assert all(f'\\n    {name}' in text for name in main.COMMANDS), text\n"
        "slow = {'torch', 'fairseq', 'numpy', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_interrupt_while_modules_are_imported():
    start = """
import os, signal, sys
class Interrupt:
    def find_spec(name, *_):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt)
sys.argv[0] = "bin/bridle"
signal.signal(signal.SIGINT, signal.default_int_handler)
from bridle_fairseq.cli.main import main
sys.exit(main(["stats", "x.tsv"]))
"""
    for module in ("bridle_fairseq.cli.main", "bridle_fairseq.utils.process", "bridle_fairseq.cli.stats"):
        done = subprocess.run([sys.executable, "-c", start, module], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (130, "bridle: interrupted\n")
