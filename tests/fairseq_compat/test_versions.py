"""Patches are keyed to fairseq 0.12 and hydra-core 1.0: other versions, or none, are left as they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_compat import WATCHED, versions

ROOT = Path(__file__).resolve().parents[2]
# A Python without site-packages but with the hook, as a .pth file installs it, and with the packages of one folder.
START = "import sys; sys.path[:0] = {path!r}; import json; before = set(sys.modules); import fairseq_compat"
LOADED = "print(json.dumps(sorted(set(sys.modules) - before)))"


def run_isolated(code, *folders):
    """What ``code`` printed as JSON, in a Python that finds fairseq_compat and the packages in ``folders`` only."""
    start = START.format(path=[*map(str, folders), str(ROOT)])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"{start}\n{code}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def make_package(folder, name, version, files=()):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"# Copyright\n\n__version__ = {version!r}\n")
    for file in files:
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("def print_exception(etype=None, value=None, tb=None): return 'stock'\n")
        (path.parent / "__init__.py").touch()
    return folder


def test_the_installed_packages_are_patched():
    assert {module for module in WATCHED if not versions.is_patched(module)} == set()
    assert versions.version_of("fairseq") == "0.12."
    assert versions.version_of("hydra") == "1.0."


def test_interpreter_start_imports_one_module():
    assert run_isolated(LOADED) == ["fairseq_compat"]


@pytest.mark.parametrize("name", ["hydra", "fairseq"])
def test_other_versions_are_not_patched(tmp_path, name):
    folder = make_package(tmp_path, name, "1.3.2")
    code = f"import {name}, dataclasses; print(json.dumps(dataclasses.dataclass.__module__))"
    assert run_isolated(code, folder) == "dataclasses"
    code = f"import {name}\n{LOADED}"
    assert "fairseq_compat.patches" not in run_isolated(code, folder)


def test_packages_without_a_version_are_not_patched(tmp_path):
    (tmp_path / "hydra").mkdir()
    assert "fairseq_compat.patches" not in run_isolated(f"import hydra\n{LOADED}", tmp_path)
    (tmp_path / "hydra" / "__init__.py").write_bytes(b"# latin-1: \xe9\n")
    code = "from fairseq_compat import versions; print(json.dumps(versions.version_of('hydra')))"
    assert run_isolated(code, tmp_path) is None


def test_the_pinned_hydra_is_patched(tmp_path):
    folder = make_package(tmp_path, "hydra", "1.0.7", ["_internal/utils.py"])
    code = "import hydra._internal.utils as utils; print(json.dumps(utils.print_exception.__module__))"
    assert run_isolated(code, folder) == "fairseq_compat.for_python"


def test_others_are_patched_only_beside_fairseq(tmp_path):
    """torchaudio alone is not patched; fairseq writes its version into version.py, a checkout into version.txt."""
    make_package(tmp_path / "a", "torchaudio", "2.9.0")
    code = "from fairseq_compat import versions; print(json.dumps(versions.is_patched('torchaudio._extension.utils')))"
    assert run_isolated(code, tmp_path / "a") is False
    assert run_isolated(code, tmp_path / "a", make_package(tmp_path / "b", "fairseq", "0.13.0")) is False
    (tmp_path / "b" / "fairseq" / "version.txt").write_text("0.12.2\n")
    assert run_isolated(code, tmp_path / "a", tmp_path / "b") is True


def test_the_pth_file_installs_the_hook_at_start(tmp_path):
    (tmp_path / "fairseq_compat.pth").write_text((ROOT / "fairseq_compat" / "fairseq_compat.pth").read_text())
    os.symlink(ROOT / "fairseq_compat", tmp_path / "fairseq_compat")
    code = f"import site, sys; site.addsitedir({str(tmp_path)!r}); print(sys.meta_path[0].__name__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("PatchingFinder", "")
