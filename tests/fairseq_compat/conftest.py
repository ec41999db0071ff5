"""Run code in a fresh interpreter, with all patches or without some of them."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import json, sys
from fairseq_compat import patches
known = {{patch.apply.__name__ for patch in patches.PATCHES}}
assert {without!r} <= known, "unknown patch"
patches.PATCHES = tuple(patch for patch in patches.PATCHES if patch.apply.__name__ not in {without!r})
def report(outcome): print("OUTCOME " + json.dumps(outcome))
"""


@pytest.fixture(scope="session")
def run_python():
    """``run_python(code, without=())`` -> (outcome that ``code`` reported or None, stderr). GPUs are hidden."""

    def run(code, without=()):
        source = PRELUDE.format(without=set(without)) + textwrap.dedent(code)
        environment = dict(os.environ, CUDA_VISIBLE_DEVICES="")
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, env=environment, check=False
        )
        outcomes = [line[8:] for line in done.stdout.splitlines() if line.startswith("OUTCOME ")]
        return (json.loads(outcomes[-1]) if done.returncode == 0 and outcomes else None), done.stderr

    return run
