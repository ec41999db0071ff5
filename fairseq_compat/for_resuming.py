"""Patch needed so that a finished run that is started again stays as it is."""

from __future__ import annotations

import functools
import logging
from types import ModuleType
from typing import Any


def leave_finished_runs_alone(module: ModuleType) -> None:
    """Needed on every version: fairseq compares with ``max_update`` only after an update.

    A run that has reached its last update and is started again, as a scheduler does after a kill at the very end, would
    make one update more each time, beyond the end of its learning rate schedule.
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
