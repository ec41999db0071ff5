"""``bridle completion``: scripts that bash and zsh accept, with every command and option."""

import shutil
import subprocess

import pytest

from bridle_fairseq.cli.main import COMMANDS, main

COMPLETE = """
eval "$SCRIPT"
complete -p bridle >&2
COMP_WORDS=(bridle {words}) COMP_CWORD={position}
{function}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def complete_in_bash():
    """``complete(words)`` -> what bash offers for the last word of ``bridle words``."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["completion", "bash"]) == 0

    def complete(*words):
        quoted = " ".join(f"'{word}'" for word in words)
        code = COMPLETE.format(words=quoted, position=len(words), function="_shtab_bridle")
        done = subprocess.run([bash, "-c", code], capture_output=True, text=True, env={"SCRIPT": printed.getvalue()})
        assert "-F _shtab_bridle bridle" in done.stderr, done.stderr
        return done.stdout.split()

    return complete


def test_commands_are_completed(complete_in_bash):
    assert set(complete_in_bash("")) >= set(COMMANDS)
    assert complete_in_bash("cross") == ["crossval"]


def test_options_and_choices_are_completed(complete_in_bash):
    assert complete_in_bash("train", "--r") == ["--run"]
    assert complete_in_bash("manifest", "--modality", "v") == ["video"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "crossval" in capsys.readouterr().out
