"""Patches for training: complete updates, gradients unscaled once, and a clean exit of a finished run."""

from __future__ import annotations

import atexit
import functools
import sys
import weakref
from types import ModuleType
from typing import Any

JOIN_TIMEOUT_SECONDS = 30.0  # for the batch that is being read when the process ends


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


def join_reader_threads_at_exit(module: ModuleType) -> None:
    """Needed on every version: fairseq reads batches ahead in a daemon thread and never joins it.

    If such a thread is inside C++ code of torch while the interpreter shuts down, the process aborts with "terminate
    called without an active exception": a finished run then exits with SIGABRT now and then.
    """
    consumers: weakref.WeakSet[Any] = weakref.WeakSet()
    original = module.BackgroundConsumer.run

    @functools.wraps(original)
    def run(self: Any) -> None:
        consumers.add(self)
        original(self)

    def join_readers() -> None:
        for consumer in list(consumers):
            consumer._max_len = 0  # stop after the batch that is being read
            with consumer._queue.mutex:
                consumer._queue.maxsize = sys.maxsize  # and never wait for room in the queue
                consumer._queue.not_full.notify_all()
            consumer.join(JOIN_TIMEOUT_SECONDS)

    module.BackgroundConsumer.run = run
    atexit.register(join_readers)
