"""Freed memory is reused, which shows in the number of page faults."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from bridle_fairseq.utils.memory import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
def faults_of(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults_of(16)  # until freed blocks have merged into one that holds an aligned block of this size
print(kept, faults_of(8))
"""


def run(keep, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT, "keep" if keep else "no"]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
    answer, faults = done.stdout.split()
    return answer == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_freed_memory_is_reused():
    (_, plain), (kept, fewer) = run(False), run(True)
    assert kept and fewer < plain / 16  # each time 2^14 pages, or huge ones, beside none


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_environment_variables_take_precedence(name):
    assert run(True, **{name: "1000000"})[0] is False
