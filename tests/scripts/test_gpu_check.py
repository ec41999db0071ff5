"""scripts/gpu_check.sh on a CPU: its arguments, its table, and the environment it makes from carried wheels.

``make soak`` goes through all sections.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/gpu_check.sh"


def check(folder, *arguments, **variables):
    environment = {**os.environ, "OUT": str(folder / "out"), "GPU_SCRATCH": str(folder / "scratch")}
    environment |= {"VENV": sys.prefix, "PYTHONPATH": str(ROOT)}
    environment |= {"GPU_CARRIED": str(folder / "none"), **variables}
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["steps"], "steps: no such section; expected tests step run loader profile"),
        (
            ["--prepare", "nowhere"],
            "nowhere/audio/arabic-speech-commands/meta.csv: no such file; expected Arabic Speech Commands",
        ),
        (["--prepare"], "gpu_check: --prepare needs DATA"),
    ],
)
def test_mistakes(tmp_path, arguments, sentence):
    done = check(tmp_path, *arguments)
    assert done.returncode != 0 and sentence in done.stderr and not done.stdout


def stand_in(folder, script):
    """A folder with bin/python, which runs a shell script in place of Python."""
    program = folder / "bin/python"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ('case "$2" in *fairseq*) exit 1 ;; esac', "has no fairseq: run make setup"),
        ('case "$2" in *cuda*) exit 1 ;; esac', "torch sees no GPU; --dry-run goes through the sections on a CPU"),
        ('case "$1" in *gpu_data.py) echo full; exit 1 ;; esac', "the sounds could not be written: full"),
    ],
)
def test_set_up_ends_with_one_sentence(tmp_path, script, sentence):
    done = check(tmp_path, "step", VENV=stand_in(tmp_path, script))
    assert done.returncode == 2 and done.stderr.endswith(f"{sentence}\n") and not done.stdout


def test_dry_run_of_a_section_ends_with_its_rows(tmp_path):
    done = check(tmp_path, "--dry-run", "loader")
    assert done.returncode == 0, done.stdout + done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert head == "| section | what | measured | goal |"
    assert [row.split(" | ")[1].split(",")[0] for row in rows[:2]] == ["clips of 10.24 s", "words of 1 s"]
    assert all(" clips/s, " in row for row in rows[:2]) and rows[2].startswith("| loader | exit code 0 after ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"loader.log", "setup.log", "table.md"}


def test_failed_section_is_named(tmp_path):
    """The other lines of the table stay, and the log's end is shown."""
    script = 'case "$1" in *gpu_step.py) echo "= one | 1 | "; echo bad; exit 3 ;; esac'
    done = check(tmp_path, "--dry-run", "step", VENV=stand_in(tmp_path, script))
    assert done.returncode == 2 and done.stderr == "gpu_check: failed: step\n"
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"--- {tmp_path}/out/step.log", "= one | 1 | "] and "| step | one | 1 |  |" in lines
    assert lines[-1].startswith("| step | exit code 3 after ")


def test_carried_environment_lies_on_top_of_this_one(tmp_path):
    """This Python is that of an environment itself; its packages are seen, and those of the wheels come first."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("omegaconf/__init__.py", "WHERE = 'carried'\n")
        wheel.writestr("carried-1.dist-info/entry_points.txt", "[console_scripts]\nsay-carried = carried:main\n")
        wheel.writestr(
            "carried.py", "def main():\n    import omegaconf, torch\n    print(omegaconf.WHERE, torch.__file__)\n"
        )
    script = ROOT / "scripts/carried_wheels.py"
    subprocess.run([sys.executable, script, wheels, tmp_path / "venv"], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [tmp_path / "venv/bin/say-carried"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == f"carried {torch.__file__}\n"
    code = "import sys, bridle_fairseq; print('fairseq_compat' in sys.modules, bridle_fairseq.__file__)"
    command = [tmp_path / "venv/bin/python", "-c", code]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == f"True {ROOT}/bridle_fairseq/__init__.py\n"
    assert (tmp_path / "venv/bin/bridle").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [(None, "no wheels"), ("carried-1-cp27-cp27mu-linux_x86_64.whl", "carried-1-cp27-cp27mu-linux_x86_64.whl is for")],
)
def test_wheels_that_do_not_fit(tmp_path, name, sentence):
    if name:
        (tmp_path / name).touch()
    command = [sys.executable, ROOT / "scripts/carried_wheels.py", tmp_path, tmp_path / "venv"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and sentence in done.stderr and not (tmp_path / "venv").exists()
