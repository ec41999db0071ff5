"""Patches for training: partial and bad updates, gradient unscaling under AMP, and a clean exit."""

from __future__ import annotations

import atexit
import functools
import sys
import weakref
from types import ModuleType
from typing import Any

JOIN_TIMEOUT_SECONDS = 30.0  # to finish the batch that is being read at exit


def sort_empty_batches_first(module: ModuleType) -> None:
    """Needed on every version: fairseq treats an update as empty if its last micro-batch is empty.

    At the end of an epoch, or after a batch of unreadable files, some ranks may have fewer micro-batches. fairseq runs
    a dummy batch in place of an empty one. If that is the last micro-batch, fairseq drops the sample size and the logs
    of the others, although their gradients count. The patch moves empty micro-batches to the front.
    """
    original = module.Trainer.train_step

    @functools.wraps(original)
    def train_step(self: Any, samples: list[Any], raise_oom: bool = False) -> Any:
        return original(self, sorted(samples, key=bool), raise_oom)

    module.Trainer.train_step = train_step


def explain_bad_updates(module: ModuleType) -> None:
    """Needed on every version: fairseq does not say which clips an update with gradients that are not finite had.

    The patch gives them to the method ``explain_bad_update`` of a task that has one: (batches of the update on this
    rank, the exception). fairseq's own handling comes first: a smaller loss scale, or its search for the first module.
    """
    original = module.Trainer.train_step

    @functools.wraps(original)
    def train_step(self: Any, samples: list[Any], raise_oom: bool = False) -> Any:
        try:
            return original(self, samples, raise_oom)
        except FloatingPointError as error:
            if hasattr(self.task, "explain_bad_update"):
                self.task.explain_bad_update(samples, error)
            raise

    module.Trainer.train_step = train_step


def keep_dummy_batch(module: ModuleType) -> None:
    """Needed on every version: fairseq ends with "Invalid dummy batch" if the first batch has become unreadable.

    fairseq reads its dummy batch anew for every epoch and validation. If all of its files have been lost since, the
    patch keeps the former one.
    """

    def reset_dummy_batch(self: Any, batch: Any) -> None:
        if batch or not self._dummy_batch:
            self._dummy_batch = batch

    module.Trainer.reset_dummy_batch = reset_dummy_batch


def unscale_gradients_once(module: ModuleType) -> None:
    """Needed on every version: under ``common.amp``, fairseq divides gradients by the loss scale twice.

    fairseq first unscales the gradients through torch's optimizer, to clip them. It then makes the step through its own
    wrapper, which torch's scaler does not know, so the scaler unscales them again. The result is close to AdamW's
    epsilon, or below it as the scale grows.
    """

    def step(self: Any) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()

    module.AMPOptimizer.step = step


def join_reader_threads_at_exit(module: ModuleType) -> None:
    """Needed on every version: fairseq prefetches batches in a daemon thread and never joins it.

    If such a thread is inside torch's C++ code during interpreter shutdown, the process aborts with "terminate called
    without an active exception": a finished run occasionally exits with SIGABRT.
    """
    consumers: weakref.WeakSet[Any] = weakref.WeakSet()
    original = module.BackgroundConsumer.run

    @functools.wraps(original)
    def run(self: Any) -> None:
        consumers.add(self)
        original(self)

    def join_readers() -> None:
        for consumer in list(consumers):
            consumer._max_len = 0  # stop after the current batch
            with consumer._queue.mutex:
                consumer._queue.maxsize = sys.maxsize  # do not wait for space in the queue
                consumer._queue.not_full.notify_all()
            consumer.join(JOIN_TIMEOUT_SECONDS)

    module.BackgroundConsumer.run = run
    atexit.register(join_readers)
