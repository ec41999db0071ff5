"""Patches needed so that an update is what its batches say: all of them, and at the scale that they have."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any


def put_missing_batches_first(module: ModuleType) -> None:
    """Needed on every version: fairseq takes an update for empty if the last of its micro-batches is.

    At the end of an epoch, and after a batch of unreadable files, an update may have fewer micro-batches on some ranks.
    fairseq runs another batch in its place, without gradient; and if that is the last one, it forgets the sample size
    and the logs of those before it, while their gradients count.
    """
    original = module.Trainer.train_step

    @functools.wraps(original)
    def train_step(self: Any, samples: list[Any], raise_oom: bool = False) -> Any:
        return original(self, sorted(samples, key=bool), raise_oom)

    module.Trainer.train_step = train_step


def unscale_gradients_once(module: ModuleType) -> None:
    """Needed on every version: under ``common.amp`` fairseq divides gradients by the scale of the loss twice.

    It has torch's scaler take the scale out of the gradients of torch's optimizer, to clip them, and then make the step
    of its own optimizer around that, which the scaler does not know: it takes the scale out once more. What is left is
    near AdamW's epsilon, and smaller than that as the scale grows.
    """

    def step(self: Any) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()

    module.AMPOptimizer.step = step
