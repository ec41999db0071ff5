"""Patches for resuming: a finished run stays as it is, and a damaged last checkpoint is replaced by a whole one."""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
from types import ModuleType
from typing import Any

from fairseq_compat.damage import damage
from fairseq_compat.for_errors import RunError

LAST = "checkpoint_last.pt"  # fairseq's default of checkpoint.restore_file


def skip_finished_runs(module: ModuleType) -> None:
    """Needed on every version: fairseq checks ``max_update`` only after an update.

    A scheduler may restart a run that was killed after its last update. Without the patch, each restart makes one more
    update, past the end of the learning rate schedule.
    """
    original = module.train

    @functools.wraps(original)
    def train(cfg: Any, trainer: Any, task: Any, epoch_itr: Any) -> Any:
        done, last = trainer.get_num_updates(), cfg.optimization.max_update
        if last and done >= last:
            logging.getLogger(module.__name__).info(f"nothing to do: num_updates {done} >= max_update {last}")
            return [None], True
        return original(cfg, trainer, task, epoch_itr)

    module.train = train  # type: ignore[attr-defined]


def check_restored_file(checkpoint: Any) -> None:
    """Check the file from which a run starts, and put the newest whole checkpoint in place of a damaged last one.

    Called before anything reads the file, by the first rank. The damaged files are kept, as ``*.damaged``.

    Args:
        checkpoint: fairseq's CheckpointConfig.

    Raises:
        RunError: a file is damaged, and no whole one is known to take its place.
    """
    suffix = checkpoint.checkpoint_suffix or ""
    last = os.path.abspath(os.path.join(checkpoint.save_dir, f"checkpoint_last{suffix}.pt"))
    if checkpoint.restore_file != LAST:
        named = checkpoint.restore_file.replace(".pt", f"{suffix}.pt")
        _check_named(named, "checkpoint.restore_file")
    elif os.path.lexists(last):
        reason = _damage(last)
        if reason is not None:
            _replace_damaged(last, reason, suffix, may_write=not checkpoint.no_save)
    elif getattr(checkpoint, "continue_once", None):
        _check_named(checkpoint.continue_once, "checkpoint.continue_once")
    elif checkpoint.finetune_from_model:
        _check_pretrained(checkpoint.finetune_from_model)
    else:
        _warn_of_others(last, suffix)


def _check_named(path: str, setting: str) -> None:
    if os.path.lexists(path):
        reason = _damage(path)
        if reason is not None:
            raise RunError(f"{setting} is {path}: {reason}; expected a whole checkpoint")


def _check_pretrained(path: str) -> None:
    """Check a checkpoint; a folder, or a model's name such as ``name`` or ``owner/name``, is left to the task."""
    if os.path.lexists(path) and not os.path.isdir(path):
        _check_named(path, "checkpoint.finetune_from_model")
    elif not os.path.isdir(path) and (path.count("/") > 1 or path.endswith(".pt")):
        raise RunError(f"checkpoint.finetune_from_model is {path}, which does not exist")


def _damage(path: str) -> str | None:
    try:
        return damage(path)
    except OSError as error:
        raise RunError(f"{path}: cannot read this checkpoint: {error.strerror or error}") from error


def _replace_damaged(last: str, reason: str, suffix: str, may_write: bool) -> None:
    logger = logging.getLogger(__name__)
    damaged = [(last, reason)]
    for updates, path in checkpoints(os.path.dirname(last), suffix):
        reason_of_other = _damage(path)
        if reason_of_other is not None:
            damaged.append((path, reason_of_other))
        elif not may_write:
            raise RunError(f"{last}: {reason}; expected checkpoint.restore_file={path}, the newest whole checkpoint")
        else:
            try:
                kept = _swap(last, path, damaged)
            except OSError as error:
                raise RunError(f"{last}: {reason}, and cannot be replaced: {error.strerror or error}") from error
            logger.warning(
                f"damaged: {'; '.join(kept)}. The run goes on from {path}, the newest whole checkpoint, after "
                f"{updates} updates"
            )
            return
    listed = "; ".join(f"{path} ({why})" for path, why in damaged)
    raise RunError(
        f"no whole checkpoint in {os.path.dirname(last)}; damaged: {listed}. Expected a whole one, or none of these "
        "files, to train from the start"
    )


def checkpoints(folder: str, suffix: str = "") -> list[tuple[int, str]]:
    """(number of updates, path) of a folder's checkpoints other than the last, the newest first.

    Files that fairseq does not name so, or that cannot be read, are left out or count as 0 updates.
    """
    name = re.compile(rf"checkpoint(\d+|_\d+_(?P<updates>\d+)|_best|\.best_.+?){re.escape(suffix)}\.pt")
    found = []
    for entry in os.scandir(folder):
        match = name.fullmatch(entry.name)
        if match is not None:
            updates = int(match["updates"]) if match["updates"] else _updates(entry.path)
            found.append((updates, entry.path))
    return sorted(found, reverse=True)


def _updates(path: str) -> int:
    import torch

    try:
        return int(
            torch.load(path, map_location="cpu", mmap=True, weights_only=True)["optimizer_history"][-1]["num_updates"]
        )
    except Exception:  # a damaged file can raise any exception; its checksums are looked at later
        return 0


def _swap(last: str, whole: str, damaged: list[tuple[str, str]]) -> list[str]:
    """Put a whole checkpoint in place of the last one, and rename the damaged ones; descriptions of these.

    The last one is replaced in a single step, because a run without it would start again from its first update.
    """
    temporary = f"{last}.tmp"
    _link(whole, temporary)
    kept = []
    for path, reason in damaged:
        name, number = f"{path}.damaged", 1
        while os.path.lexists(name):
            name, number = f"{path}.damaged{number}", number + 1
        if path == last and os.path.isfile(path):
            _link(path, name)
        else:
            os.rename(path, name)
        kept.append(f"{path} ({reason}; kept as {os.path.basename(name)})")
    os.replace(temporary, last)
    return kept


def _link(path: str, name: str) -> None:
    """A second name for a file, or a copy of it where the file system has no links."""
    try:
        os.link(path, name)
    except OSError:
        shutil.copyfile(path, name)


def _warn_of_others(last: str, suffix: str) -> None:
    folder = os.path.dirname(last)
    others = checkpoints(folder, suffix) if os.path.isdir(folder) else []
    if others:
        logging.getLogger(__name__).warning(
            f"there is no {last}, so the run starts from its first update, although {others[0][1]} is there; "
            f"checkpoint.restore_file={others[0][1]} goes on from that"
        )
