"""pytest loads hydra's plugin with its own finder, and still gets the patched hydra."""

import os
import subprocess
import sys

import hydra.conf
import pytest

PYTEST = """
import sys
from fairseq_compat import patches
patches.PATCHES = tuple(patch for patch in patches.PATCHES if patch.apply.__name__ != {without!r})
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", {path!r}]))
"""


def run_pytest(folder, without=""):
    (folder / "pytest.ini").write_text("[pytest]\n")
    test = folder / "test_sample.py"
    test.write_text("def test_sample(hydra_restore_singletons):\n    assert True\n")
    source = PYTEST.format(without=without, path=str(test))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=environment, cwd=folder)


def test_hydra_is_patched_in_this_process():
    assert hydra.conf.HydraConf().job is not None


def test_pytest_loads_hydra_plugin(tmp_path):
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="hydra needs no patch to be imported before Python 3.11")
def test_pytest_fails_without_patch(tmp_path):
    done = run_pytest(tmp_path, without="exclude_watched_modules")
    assert done.returncode != 0
    assert "use default_factory" in done.stdout + done.stderr
