"""Atomic checkpoints, and the lock of their folder."""

import errno
import io
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from fairseq_compat import for_saving
from fairseq_compat.for_errors import RunError
from fairseq_compat.for_saving import TEMPORARY, _locks, replace, save_atomically


class Paths:
    """fairseq's PathManager."""

    @staticmethod
    def supports_rename(path):
        return True

    copy = staticmethod(shutil.copyfile)


@pytest.fixture
def utils(tmp_path):
    """A module like fairseq.checkpoint_utils, patched; it saves checkpoint_1_2.pt and copies it to last."""

    def save_checkpoint(cfg, trainer, epoch_itr, val_loss):
        os.makedirs(cfg.save_dir, exist_ok=True)
        paths = [os.path.join(cfg.save_dir, name) for name in ("checkpoint_1_2.pt", "checkpoint_last.pt")]
        module.torch_persistent_save({"weight": trainer}, paths[0])
        assert module.PathManager.copy(paths[0], paths[1], overwrite=True)

    module = SimpleNamespace(save_checkpoint=save_checkpoint, torch_persistent_save=None, PathManager=Paths)
    module.torch_persistent_save = lambda obj, filename, async_write=False: torch.save(obj, filename)
    save_atomically(module)
    return module


@pytest.fixture
def cfg(tmp_path):
    yield SimpleNamespace(save_dir=str(tmp_path / "checkpoints"))
    _locks.release(str(tmp_path / "checkpoints"))


def test_checkpoints_are_saved_and_copied(utils, cfg):
    utils.save_checkpoint(cfg, torch.arange(3.0), None, None)
    assert sorted(os.listdir(cfg.save_dir)) == ["checkpoint_1_2.pt", "checkpoint_last.pt"]
    assert torch.load(f"{cfg.save_dir}/checkpoint_last.pt")["weight"].tolist() == [0, 1, 2]


def torn_copy(source, target):
    with open(target, "w") as file:
        file.write("torn")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["save", "copy"])
def test_full_disk_keeps_the_older_checkpoints(utils, cfg, monkeypatch, step):
    utils.save_checkpoint(cfg, torch.arange(3.0), None, None)
    if step == "copy":
        monkeypatch.setattr(shutil, "copyfile", torn_copy)
    else:
        real = for_saving._Raw
        monkeypatch.setattr(for_saving, "_Raw", lambda path, mode: open(path, "w").close() or real("/dev/full", mode))
    with pytest.raises(RunError, match=r"cannot save a checkpoint: No space left on device; [\d.]+ MB are"):
        utils.save_checkpoint(cfg, torch.arange(9.0), None, None)
    assert sorted(os.listdir(cfg.save_dir)) == ["checkpoint_1_2.pt", "checkpoint_last.pt"]
    assert torch.load(f"{cfg.save_dir}/checkpoint_last.pt")["weight"].tolist() == [0, 1, 2]


def test_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (steps.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("rename"), rename(*paths)))
    path = tmp_path / "checkpoint_last.pt"
    replace(str(path), lambda temporary: torch.save(1, temporary))
    assert steps == [f"{path}.tmp", "rename", str(tmp_path)]


def test_interrupt_while_a_checkpoint_is_written(utils, tmp_path, monkeypatch):
    """torch closes its archive then, and raises another error."""

    class Torn(io.FileIO):
        interrupts = [KeyboardInterrupt]

        def write(self, data):
            if self.interrupts:
                raise self.interrupts.pop()
            return super().write(data)

    class Interrupted(for_saving._Raw, Torn):
        """Its ``super().write`` is that of Torn."""

    monkeypatch.setattr(for_saving, "_Raw", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        utils.torch_persistent_save({"w": torch.arange(100000.0)}, str(tmp_path / "checkpoint_last.pt"))
    assert os.listdir(tmp_path) == []


def test_lost_disk_has_a_sentence(utils, cfg, monkeypatch):
    """The folder cannot be asked for its room then."""

    def lost(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    os.makedirs(cfg.save_dir)
    monkeypatch.setattr(os, "fsync", lost)
    monkeypatch.setattr(shutil, "disk_usage", lost)
    with pytest.raises(RunError, match=r"cannot save a checkpoint: Input/output error\. Checkpoints that are there"):
        utils.save_checkpoint(cfg, torch.arange(3.0), None, None)


def test_temporary_files_are_those_with_names_of_checkpoints():
    for name in ("checkpoint_last", "checkpoint_best", "checkpoint3", "checkpoint_1_2", "checkpoint.best_loss_1.2340"):
        assert TEMPORARY.fullmatch(f"{name}.pt.tmp") and TEMPORARY.fullmatch(f"{name}-shard0.pt.tmp")
        assert not TEMPORARY.fullmatch(f"{name}.pt")
    for name in ("checkpoints.pt.tmp", "notes.tmp", "checkpoint_last.tar.tmp", "my_checkpoint_last.pt.tmp"):
        assert not TEMPORARY.fullmatch(name)


HOLD = """
import sys, time
from fairseq_compat.for_saving import _locks
_locks.take(sys.argv[1])
print("held", flush=True)
time.sleep(600)
"""


def test_folder_is_locked_until_its_holder_is_killed(cfg, monkeypatch):
    os.makedirs(cfg.save_dir)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, cfg.save_dir], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            monkeypatch.context() as patch,
            pytest.raises(RunError, match=f"process {holder.pid} on .* trains"),
        ):
            patch.setattr(for_saving, "PATIENCE_SECONDS", 0)
            _locks.take(cfg.save_dir)
    finally:
        holder.kill()
        holder.wait()
    _locks.take(cfg.save_dir)
    with open(os.path.join(cfg.save_dir, ".lock")) as file:
        assert file.read().startswith(f"process {os.getpid()} on ")


def test_removed_folder_is_reported_after_the_checkpoint_is_saved(utils, cfg):
    os.makedirs(cfg.save_dir)
    _locks.take(cfg.save_dir)
    utils.save_checkpoint(cfg, torch.arange(3.0), None, None)
    shutil.rmtree(cfg.save_dir)
    with pytest.raises(RunError, match="removed or unmounted during the run; the present checkpoint was"):
        utils.save_checkpoint(cfg, torch.arange(3.0), None, None)
    assert torch.load(f"{cfg.save_dir}/checkpoint_last.pt")["weight"].tolist() == [0, 1, 2]


def test_removed_lock_alone_is_no_removed_folder(utils, cfg):
    os.makedirs(cfg.save_dir)
    _locks.take(cfg.save_dir)
    utils.save_checkpoint(cfg, torch.arange(3.0), None, None)
    os.remove(f"{cfg.save_dir}/.lock")
    utils.save_checkpoint(cfg, torch.arange(3.0), None, None)
