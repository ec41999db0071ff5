"""scripts/setup.sh: one sentence names what is missing, before anything is downloaded."""

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-cuda.lock")
INPUTS = (*LOCKS, "setup.py", "pyproject.toml", "fairseq_compat/fairseq_compat.pth")
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
    locked, own = note.read_text().splitlines()[-2:]
    assert locked.endswith("--constraint requirements-cuda.lock --find-links wheels --find-links file:///page.html")
    assert own.endswith("--no-deps -e .")


def test_lock_is_installed_without_find_links(made):
    checkout, note = made
    done = set_up(checkout)
    assert done.returncode == 0, done.stderr
    assert "--find-links" not in note.read_text()
    locked, own = note.read_text().splitlines()[-2:]
    assert "--build-constraint requirements.lock --require-hashes -r .venv/requirements.txt" in locked
    assert "--build-constraint requirements.lock" in own
    assert (checkout / ".venv" / "requirements.txt").read_text() == (checkout / "requirements.lock").read_text()


TORCH = re.search(r"^torch==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]
WHEEL = f"torch-{TORCH}+cpu-cp{sys.version_info[0]}{sys.version_info[1]}-none-manylinux_9_9_{platform.machine()}.whl"


def torch_wheel(checkout, content=b"a wheel"):
    (checkout / "wheels").mkdir()
    (checkout / "wheels" / WHEEL).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_local_build_of_torch_replaces_the_locked_one(made):
    checkout, _ = made
    digest = torch_wheel(checkout)
    done = set_up(checkout, PIP_FIND_LINKS="wheels")
    assert done.returncode == 0
    assert done.stderr == f"setup: wheels/{WHEEL} has no recorded hash and is trusted: sha256 {digest}\n"
    installed = (checkout / ".venv" / "requirements.txt").read_text()
    assert f"\ntorch=={TORCH}+cpu \\\n    --hash=sha256:{digest}\ntorchaudio" in installed
    assert f"\ntorch=={TORCH} " not in installed


def test_local_build_of_torch_that_was_changed(made):
    checkout, note = made
    torch_wheel(checkout)
    with (checkout / "scripts" / "torch_wheels.sha256").open("a") as file:
        file.write(f"{'0' * 64}  {WHEEL}\n")
    done = set_up(checkout, PIP_FIND_LINKS="wheels")
    assert done.returncode != 0
    assert done.stderr.startswith(f"setup: wheels/{WHEEL} was changed: its sha256 is ")
    assert "--require-hashes" not in note.read_text()


def test_local_torch_of_another_version_or_python_is_not_used(made):
    checkout, _ = made
    (checkout / "wheels").mkdir()
    for name in (f"torch-9.9.9+cpu-{WHEEL.split('-', 2)[2]}", f"torch-{TORCH}+cpu-cp39-none-{WHEEL.split('-')[-1]}"):
        (checkout / "wheels" / name).touch()
    assert set_up(checkout, PIP_FIND_LINKS="wheels").stderr == ""
    assert (checkout / ".venv" / "requirements.txt").read_text() == (checkout / "requirements.lock").read_text()


def packages(name):
    """Pairs of a package's name and its lines in a lock: the version, and a hash on each further line."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    blocks = re.split(r"\n(?=\w)", "\n".join(lines))
    return [(re.match(r"[\w.-]+", block)[0], block.splitlines()) for block in blocks]


@pytest.mark.parametrize("name", LOCKS)
def test_all_locked_packages_have_hashes(name):
    for package, (version, *hashes) in packages(name):
        assert re.match(rf"{re.escape(package)}==[\w.]+( ; .*)? \\$", version)
        assert hashes and all(re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)
    assert "://" not in (ROOT / name).read_text()


def test_cuda_packages_are_constraints_only():
    cuda = [name.startswith(("nvidia-", "cuda-", "triton")) for name, _ in packages("requirements-cuda.lock")]
    assert len(cuda) > 10 and all(cuda)
    assert not any(name.startswith(("nvidia-", "cuda-", "triton")) for name, _ in packages("requirements.lock"))


def test_lock_has_all_that_setup_py_and_builds_need():
    wanted = re.findall(r'"([A-Za-z][\w.-]*)[>=<]=', (ROOT / "setup.py").read_text())
    outside = {"faiss-cpu", "sphinx", "furo", "myst-parser"}  # not in the environment of the tests
    wanted = {name.lower() for name in wanted} - outside | {"uv", "setuptools", "wheel", "cython"}
    assert len(wanted) > 20 and wanted <= {name for name, _ in packages("requirements.lock")}


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
