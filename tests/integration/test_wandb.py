"""Weights & Biases: what a run gives it, recorded by a module in its place (the package wants a network or a login)."""

import json
import os
import subprocess
import sys

import pytest

STAND_IN = """
import json, os

def record(*values):
    with open(os.environ["RECORD"], "a") as file:
        print(json.dumps(values), file=file)

class Config:
    def update(self, values):
        record("config", values["model"]["encoder_width"])

config = Config()

def init(project, reinit, name):
    record("init", project, name)

def log(values, step=None):
    record("log", {name: float(value) for name, value in values.items()}, int(step))
"""


def test_wandb_gets_the_logged_values(fairseq, tmp_path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/wandb.py").write_text(STAND_IN)
    program, *options = map(str, fairseq.command("common.wandb_project=sounds", "optimization.max_update=3"))
    program = os.path.join(os.path.dirname(sys.executable), program)
    path = os.pathsep.join(filter(None, [str(tmp_path / "modules"), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "RECORD": str(tmp_path / "record")}
    with open(tmp_path / "log", "w") as log:
        command = [sys.executable, program, *options, "checkpoint.save_dir=mine"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=300)
    run = fairseq.run_in(tmp_path)
    assert done.returncode == 0, run.log[-4000:]
    records = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    assert {tuple(values) for kind, *values in records if kind == "init"} == {("sounds", "mine")}
    assert ["config", 32] in records
    for tag in ("train_inner", "valid"):
        logged = run.logged(tag)
        given = {update: {} for update in logged}
        for kind, *values in records:
            if kind == "log" and all(name.startswith(f"{tag}/") for name in values[0]):
                given[values[1]] |= {name.removeprefix(f"{tag}/"): value for name, value in values[0].items()}
        assert sorted(logged) == ([1, 2, 3] if tag == "train_inner" else [3])
        for update, record in logged.items():
            assert given[update]["loss"] == pytest.approx(record["loss"], abs=1e-3, rel=1e-3)
            assert {"code_accuracy", "stage"} & record.keys() <= given[update].keys()
