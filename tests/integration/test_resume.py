"""A killed run that resumes is bit-identical to an uninterrupted one: parameters, codebooks and optimizer."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

MODALITIES = pytest.mark.modalities("audio", "image", "video")
SAVE = "checkpoint.save_interval_updates=1"


def kill_after(job, folder, update, ranks=1):
    """Send SIGKILL to a run once every rank is held by observe.py after an update."""
    while not all((folder / f"held.{rank}").exists() for rank in range(ranks)):
        assert job.running(), job.log()[-3000:]
        time.sleep(0.02)
    job.kill()
    assert set(job.codes.values()) == {-9}
    assert f'"num_updates": "{update - 1}"' in job.log() and "done training" not in job.log()


def check_sigkill(fairseq, full_run, compare, stages, folder, workers):
    """Kill a run in its second stage; go on past the end of the stage and of the epoch."""
    overrides = ["checkpoint.save_interval_updates=10", f"dataset.num_workers={workers}", "optimization.max_update=29"]
    job = fairseq.start(folder, *overrides, stages=stages, hold=23)
    kill_after(job, folder, 23)
    run = fairseq.train(folder, *overrides, stages=stages)
    assert re.search(r"Loaded checkpoint .*checkpoint_last.pt \(epoch 4 @ 21 updates\)", run.log)
    assert compare(run.state(), full_run.state(29)) == []


@MODALITIES
def test_resume_after_sigkill_is_bit_identical(fairseq, full_run, compare, stages, tmp_path):
    check_sigkill(fairseq, full_run, compare, stages, tmp_path, workers=1)


def test_resume_after_sigkill_without_workers_is_bit_identical(fairseq, full_run, compare, stages, tmp_path):
    check_sigkill(fairseq, full_run, compare, stages, tmp_path, workers=0)


# 13, 23 and 32 are boundaries of stages, 14 and 28 are ends of epochs.
@pytest.mark.parametrize("update", [5, 12, 13, 14, 23, 24, 28, 32, 36])
def test_resume_from_any_update_is_bit_identical(fairseq, full_run, compare, stages, tmp_path, update):
    end = update + 4
    restore = f"checkpoint.restore_file={full_run.path(update)}"
    run = fairseq.train(tmp_path, SAVE, restore, f"optimization.max_update={end}", stages=stages)
    assert f"@ {update} updates)" in run.log
    assert compare(run.state(), full_run.state(end)) == []


@pytest.mark.parametrize("ranks", [1, 2])
def test_resume_from_the_newest_whole_checkpoint_is_bit_identical(
    fairseq, full_run, two_rank_run, compare, stages, tmp_path, ranks
):
    """The last checkpoint has a flipped bit; on two ranks, the first one tells the other."""
    whole = {1: full_run, 2: two_rank_run}[ranks]
    saves = tmp_path / "checkpoints"
    saves.mkdir()
    for update in (35, 37):
        shutil.copy(whole.path(update), saves)
    content = bytearray(whole.path(39).read_bytes())
    content[len(content) // 2] ^= 1
    (saves / "checkpoint_last.pt").write_bytes(content)
    run = fairseq.train(tmp_path, "checkpoint.keep_interval_updates=1", stages=stages, ranks=ranks)
    assert f"goes on from {saves}/{whole.path(37).name}, the newest whole checkpoint, after 37 updates" in run.log
    assert (saves / "checkpoint_last.pt.damaged").read_bytes() == content
    assert compare(run.state(), whole.state(40)) == []


def test_restarting_a_finished_run_changes_nothing(fairseq, stages, tmp_path):
    """A scheduler restarts a run that was killed between the last save and the end."""
    overrides = ["optimization.max_update=3", "checkpoint.save_interval_updates=1"]
    saved = fairseq.train(tmp_path, *overrides, stages=stages).path().read_bytes()
    again = fairseq.train(tmp_path, *overrides, stages=stages)
    assert "nothing to do: num_updates 3 >= max_update 3" in again.log
    assert max(again.logged()) == 3 and again.path().read_bytes() == saved


def test_smaller_max_update_only_stops_early(fairseq, full_run, compare, stages, tmp_path):
    assert "num_updates: 40 >= max_update: 40" in full_run.log
    run = fairseq.train(tmp_path, "optimization.max_update=15", stages=stages)
    assert compare(run.state(), full_run.state(15)) == []


@MODALITIES
@pytest.mark.parametrize("update", [9, 23])
def test_resume_on_two_ranks_is_bit_identical(fairseq, two_rank_run, compare, stages, tmp_path, update):
    end = update + 3
    restore = f"checkpoint.restore_file={two_rank_run.path(update)}"
    run = fairseq.train(tmp_path, SAVE, restore, f"optimization.max_update={end}", stages=stages, ranks=2)
    assert compare(run.state(), two_rank_run.state(end)) == []


def test_resume_under_torchrun_is_bit_identical(fairseq, programs, two_rank_run, compare, stages, tmp_path):
    overrides = ["checkpoint.save_interval_updates=10", "optimization.max_update=25"]
    job = fairseq.start(tmp_path, *overrides, stages=stages, ranks=2, hold=22)
    kill_after(job, tmp_path, 22, ranks=2)
    torchrun = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc_per_node=2", "--no-python"]
    name, *arguments = fairseq.command(*overrides, stages=stages, ranks=2)
    done = subprocess.run(
        [*torchrun, programs / name, *map(str, arguments)],
        cwd=tmp_path,
        env=dict(os.environ, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES=""),
        stdout=(tmp_path / "log").open("a"),
        stderr=subprocess.STDOUT,
        check=False,
    )
    run = fairseq.run_in(tmp_path, ranks=2)
    assert done.returncode == 0, run.log[-3000:]
    assert re.search(r"Loaded checkpoint .*checkpoint_last.pt \(epoch 6 @ 20 updates\)", run.log)
    assert compare(run.state(), two_rank_run.state(25)) == []
