"""pytest, which loads hydra's plugin by a finder of its own, still gets the patched hydra."""

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


def test_this_process_has_the_patched_hydra():
    assert hydra.conf.HydraConf().job is not None


def test_pytest_loads_the_plugin_of_hydra(tmp_path):
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="hydra needs no patch to be imported before Python 3.11")
def test_pytest_cannot_start_without_the_patch(tmp_path):
    done = run_pytest(tmp_path, without="leave_watched_modules_alone")
    assert done.returncode != 0
    assert "use default_factory" in done.stdout + done.stderr
