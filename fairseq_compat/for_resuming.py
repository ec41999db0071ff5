"""Patch that makes restarting a finished run a no-op."""

from __future__ import annotations

import functools
import logging
from types import ModuleType
from typing import Any


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
