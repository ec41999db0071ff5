"""Patches for saving: checkpoints that are whole at any moment, and one run in a folder at a time."""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import functools
import io
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from fairseq_compat.for_errors import RunError
from fairseq_compat.for_resuming import check_restored_file

logger = logging.getLogger(__name__)

LOCK = ".lock"
PATIENCE_SECONDS = 3.0  # a killed process with much memory holds its locks until that is freed
TEMPORARY = re.compile(r"(checkpoint(\d+|_\d+_\d+|_best|_last|\.best_.+)(-.*)?|crash)\.pt\.tmp")  # of fairseq's names
_LOCKED_ELSEWHERE = (errno.EACCES, errno.EAGAIN)


def save_atomically(module: ModuleType) -> None:
    """Needed on every version: fairseq copies a checkpoint to ``checkpoint_last.pt`` in place.

    A kill or a full disk during the copy leaves a torn file, with which no restart works. The patch of
    ``fairseq.checkpoint_utils`` writes every checkpoint to a temporary file beside it, forces it to the disk, and
    renames it. If that fails, the older files stay, the temporary one goes, and the run ends with one sentence.
    fairseq's three attempts are left out: after a part of a file, they could only append to it.
    """
    save, write, paths = module.save_checkpoint, module.torch_persistent_save, module.PathManager

    class AtomicPaths(paths):  # type: ignore[misc, valid-type]
        @staticmethod
        def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
            if not paths.supports_rename(dst_path):
                return paths.copy(src_path, dst_path, overwrite=overwrite)
            replace(dst_path, lambda temporary: shutil.copyfile(src_path, temporary))
            return True

    @functools.wraps(write)
    def torch_persistent_save(obj: Any, filename: str, async_write: bool = False) -> None:
        if async_write or not paths.supports_rename(filename):
            write(obj, filename, async_write)
        else:
            replace(filename, lambda temporary: _save(obj, temporary))

    @functools.wraps(save)
    def save_checkpoint(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> None:
        folder = os.path.abspath(cfg.save_dir)
        removed = _locks.is_removed(folder)
        try:
            save(cfg, trainer, epoch_itr, val_loss)
        except OSError as error:
            raise RunError(_not_saved(folder, error)) from error
        if removed:
            raise RunError(
                f"{folder} was removed or unmounted during the run; the present checkpoint was saved in a new folder "
                "of that name. The same command goes on from it"
            )

    module.PathManager = AtomicPaths  # type: ignore[attr-defined]
    module.torch_persistent_save = torch_persistent_save  # type: ignore[attr-defined]
    module.save_checkpoint = save_checkpoint  # type: ignore[attr-defined]


def replace(path: str, write: Callable[[str], object]) -> None:
    """Replace a file by one that ``write`` writes to the path it is given: whole and on the disk, or not at all."""
    temporary = f"{path}.tmp"
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    with contextlib.suppress(OSError):  # not every file system can
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class _Raw(io.FileIO):
    """A file that remembers why it could not be written: torch may raise another error."""

    error: BaseException | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BaseException as error:
            self.error = error
            raise


def _save(obj: Any, path: str) -> None:
    import torch

    with _Raw(path, "w") as raw:
        try:
            with io.BufferedWriter(raw) as file:
                torch.save(obj, file)
        except Exception as error:
            if raw.error is not None:
                raise raw.error from None
            if isinstance(error.__context__, KeyboardInterrupt):  # between two writes
                raise KeyboardInterrupt from None
            raise


def _not_saved(folder: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"{folder}: removed or unmounted while a checkpoint was saved there ({error})"
    if error.errno == errno.EFBIG:
        return f"{folder}: cannot save a checkpoint: it is larger than a file may be (ulimit -f)"
    sentence, advice = f"{folder}: cannot save a checkpoint: {error.strerror or error}", "when files can be made there"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            sentence += f"; {shutil.disk_usage(folder).free / 2**20:.1f} MB are free"
        advice = "when there is room"
    return f"{sentence}. Checkpoints that are there are whole; give the same command again {advice}"


def guard_save_dir(module: ModuleType) -> None:
    """Needed on every version: two runs in one folder overwrite each other's checkpoints.

    The patch of ``fairseq_cli.train`` holds a lock in ``checkpoint.save_dir`` while a run trains. The kernel releases
    it when the process ends in any way. A second run ends with one sentence, as does one that cannot write there.
    Temporary files of a killed run are removed, and the file to start from is checked
    (:func:`fairseq_compat.for_resuming.check_restored_file`). The first rank does all this for the others.
    """
    main = module.main

    @functools.wraps(main)
    def guarded(cfg: Any) -> Any:
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf

        if isinstance(cfg, argparse.Namespace):
            cfg = convert_namespace_to_omegaconf(cfg)
        with contextlib.ExitStack() as stack:
            by_first_rank(lambda: stack.enter_context(_guarded(cfg)))
            return main(cfg)

    module.main = guarded  # type: ignore[attr-defined]


def by_first_rank(work: Callable[[], object]) -> None:
    """Call a function on the first rank; all ranks wait for it, and end if it raises a :class:`RunError`."""
    import torch

    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    failure: list[RunError | None] = [None]
    if not distributed or torch.distributed.get_rank() == 0:
        try:
            work()
        except RunError as error:
            failure[0] = error
    failed = [failure[0] is not None]
    if distributed:
        torch.distributed.broadcast_object_list(failed, src=0)
    if failure[0] is not None:
        raise failure[0]
    if failed[0]:
        raise SystemExit(2)  # the first rank prints the sentence


@contextlib.contextmanager
def _guarded(cfg: Any) -> Iterator[None]:
    from fairseq import checkpoint_utils
    from fairseq.file_io import PathManager

    checkpoint = cfg.checkpoint
    if PathManager.path_requires_pathmanager(checkpoint.save_dir):
        yield  # not a folder of this machine
        return
    folder = os.path.abspath(checkpoint.save_dir)
    try:
        checkpoint_utils.verify_checkpoint_directory(folder)
        if not checkpoint.no_save:
            _locks.take(folder)
            for name in os.listdir(folder):
                if TEMPORARY.fullmatch(name) and os.path.isfile(os.path.join(folder, name)):
                    os.remove(os.path.join(folder, name))
    except OSError as error:
        raise RunError(
            f"checkpoint.save_dir is {folder}: {error.strerror or error}; expected a folder in which files can be made"
        ) from error
    try:
        if not _has_file_of_each_rank(cfg):
            check_restored_file(checkpoint)
        yield
    finally:
        _locks.release(folder)


def _has_file_of_each_rank(cfg: Any) -> bool:
    """Whether every rank saves and restores a file of its own."""
    sharded = cfg.distributed_training.use_sharded_state or cfg.common.model_parallel_size > 1
    return sharded or getattr(cfg.model, "base_layers", 0) > 0


class _Locks:
    """The locks that this process holds: folder -> open file.

    They are POSIX locks, which data loader workers do not inherit, and which NFS has. They end when the process closes
    the file, so nothing else may open it.
    """

    def __init__(self) -> None:
        self.files: dict[str, io.TextIOWrapper] = {}

    def take(self, folder: str) -> None:
        """Lock a folder.

        Raises:
            RunError: another process holds the lock.
            OSError: the file of the lock cannot be made.
        """
        if folder in self.files:
            return
        file = open(os.path.join(folder, LOCK), "a+", encoding="utf-8")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in _LOCKED_ELSEWHERE:
                    logger.warning(f"{folder}: its file system has no locks; expected no second run in it")
                    break
                if time.monotonic() > deadline:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    file.close()
                    raise RunError(
                        f"checkpoint.save_dir is {folder}, in which {holder} trains; expected another folder, or the "
                        "end of that run"
                    ) from None
                time.sleep(0.1)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        self.files[folder] = file

    def release(self, folder: str) -> None:
        """Unlock a folder."""
        if folder in self.files:
            self.files.pop(folder).close()

    def is_removed(self, folder: str) -> bool:
        """Whether a folder that this process has locked is gone, or is another one with neither lock nor checkpoint."""
        if folder not in self.files:
            return False
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(os.path.join(folder, LOCK)), os.fstat(self.files[folder].fileno())):
                return False
        return not (os.path.isdir(folder) and any(name.startswith("checkpoint") for name in os.listdir(folder)))


_locks = _Locks()
