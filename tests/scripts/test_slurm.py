"""The Slurm scripts, run with stub programs in place of Slurm's and this package's that print their arguments."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "examples/slurm"
CALLED = '#!/bin/sh\nprintf "%s\\n" "$@"\n'
PROGRAMS = {
    "bin/scontrol": '#!/bin/sh\n[ "$1 $2 $3" = "show hostnames node[3-4]" ] && printf "node3\\nnode4\\n"\n',
    "bin/srun": '#!/bin/sh\nshift\nexec "$@"\n',
    "check out/.venv/bin/torchrun": CALLED,
    "check out/.venv/bin/bridle": CALLED,
}
JOB = {"SLURM_JOB_NODELIST": "node[3-4]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "77", "SLURM_GPUS_ON_NODE": "4"}
ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_COUNT": "8"}


@pytest.fixture
def submit(tmp_path):
    """``submit(script, *arguments, **environment)`` -> the finished process."""
    for name, text in PROGRAMS.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)

    def run(script, *arguments, **environment):
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "SLURM_SUBMIT_DIR": str(tmp_path / "check out"), **environment}
        command = ["bash", str(SCRIPTS / script), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_pretraining_starts_torchrun_on_every_node(submit, tmp_path):
    done = submit("pretrain.sbatch", "optimization.update_freq=[2]", DATA="/data of mine", RUN="/runs/1", **JOB)
    assert done.returncode == 0, done.stderr
    checkout = tmp_path / "check out"
    expected = shlex.split(
        "--nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint node3:29500 --rdzv_id 77 "
        f"'{checkout}/.venv/bin/fairseq-hydra-train' "
        f"--config-dir '{checkout}/examples/audio/config/pretraining' --config-name base "
        f"'common.user_dir={checkout}/bridle_fairseq' 'task.data=/data of mine' "
        "distributed_training.distributed_world_size=8 checkpoint.save_dir=/runs/1 hydra.run.dir=/runs/1 "
        "optimization.update_freq=[2]"
    )
    assert done.stdout.splitlines() == expected


def test_each_array_task_tokenizes_its_shard(submit):
    where = {"CHECKPOINT": "/c p.pt", "MANIFEST": "/m/train.tsv", "OUT": "/codes"}
    done = submit("tokenize.sbatch", "--batch-size", "8", **where, **ARRAY)
    assert done.returncode == 0, done.stderr
    expected = "tokenize '/c p.pt' /m/train.tsv --out /codes --shard 3/8 --workers 8 --batch-size 8"
    assert done.stdout.splitlines() == shlex.split(expected)
    done = submit("tokenize.sbatch", COMMAND="features", SLURM_CPUS_PER_TASK="3", **where, **ARRAY)
    assert done.stdout.splitlines()[0] == "features" and done.stdout.splitlines()[-1] == "3"


@pytest.mark.parametrize(("script", "missing"), [("pretrain.sbatch", "DATA"), ("tokenize.sbatch", "CHECKPOINT")])
def test_missing_variable_is_named(submit, script, missing):
    done = submit(script, **JOB, **ARRAY)
    assert done.returncode != 0 and done.stdout == "" and missing in done.stderr
