"""scripts/setup.sh: one sentence names what is missing, before anything is downloaded."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ("requirements.lock", "setup.py", "pyproject.toml", "fairseq_compat/fairseq_compat.pth")
RUNS_THIS_PYTHON = '#!/bin/sh\nexec "{python}" "$@"\n'
# Stands for another interpreter: fails the version check, and prints version 3.9.
OLD_PYTHON = '#!/bin/sh\ncase "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac\n'


@pytest.fixture
def checkout(tmp_path):
    """A folder with the files that the setup script reads."""
    root = tmp_path / "check out"
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "fairseq_compat").mkdir()
    for name in INPUTS:
        shutil.copy(ROOT / name, root / name)
    return root


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def set_up(checkout, **variables):
    names = ("PYTHON", "VENV", "CC", "CXX", "PIP_FIND_LINKS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = ["/bin/sh", str(checkout / "scripts" / "setup.sh")]
    return subprocess.run(
        command, env=environment | variables, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_old_python(checkout, tmp_path):
    python = program(tmp_path / "old", OLD_PYTHON)
    done = set_up(checkout, PYTHON=str(python))
    assert done.returncode != 0
    assert done.stderr == f"setup: PYTHON={python} is Python 3.9, but Python 3.10 to 3.13 is needed.\n"
    assert not (checkout / ".venv").exists()


def test_no_python(checkout, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("dirname", "cat", "cksum", "head"):
        (tools / name).symlink_to(shutil.which(name))
    done = set_up(checkout, PATH=str(tools))
    assert done.returncode != 0
    assert done.stderr.startswith("setup: no Python 3.10 to 3.13 was found")
    assert done.stderr.count("\n") == 1


def test_missing_compiler(checkout):
    done = set_up(checkout, PYTHON=sys.executable, CXX="no-such-compiler -O2")
    assert done.returncode != 0
    assert done.stderr.startswith("setup: fairseq is built from source, and the compiler no-such-compiler is missing: ")
    assert done.stderr.count("\n") == 1
    assert not (checkout / ".venv").exists()


def test_missing_header(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("check_build_tools", ROOT / "scripts" / "check_build_tools.py")
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    assert check.missing_header() is None
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(check, "missing_compiler", lambda: None)
    with pytest.raises(SystemExit, match="Python.h"):
        check.main()


def test_environment_of_another_python(checkout, tmp_path):
    program(checkout / ".venv" / "bin" / "python", RUNS_THIS_PYTHON.format(python=sys.executable))
    python = program(tmp_path / "old", OLD_PYTHON)
    done = set_up(checkout, PYTHON=str(python))
    assert done.returncode != 0
    assert f"PYTHON={python} is 3.9: remove .venv, or set VENV to another folder." in done.stderr


@pytest.fixture
def made(checkout, tmp_path):
    """The checkout with an environment whose installer only writes its arguments to a file, and that file."""
    note = tmp_path / "arguments"
    python = f'#!/bin/sh\n[ "$1 $2" = "-m uv" ] && echo "$@" >>"{note}" && exit\nexec "{sys.executable}" "$@"\n'
    program(checkout / ".venv" / "bin" / "python", python)
    return checkout, note


def test_lock_is_installed_with_find_links(made):
    checkout, note = made
    (checkout / "wheels").mkdir()
    done = set_up(checkout, PIP_FIND_LINKS="wheels no-such-folder file:///page.html")
    assert done.returncode == 0, done.stderr
    expected = "-r requirements.lock -e .[dev] --find-links wheels --find-links file:///page.html\n"
    assert note.read_text().endswith(expected)


def test_lock_is_installed_without_find_links(made):
    checkout, note = made
    done = set_up(checkout)
    assert done.returncode == 0, done.stderr
    assert "--find-links" not in note.read_text()
    assert "-r requirements.lock" in note.read_text()


def test_second_setup_does_nothing_until_the_lock_changes(made):
    checkout, note = made
    set_up(checkout)
    note.unlink()
    done = set_up(checkout)
    assert (done.returncode, done.stdout, note.exists()) == (0, "", False)
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert set_up(checkout).returncode == 0
    assert note.exists()


def test_moved_environment(made):
    checkout, _ = made
    set_up(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    done = set_up(moved)
    assert done.returncode != 0
    assert "cannot be moved: remove .venv" in done.stderr
