"""Runs before a training command and counts what waits for the device in an update, where it happens.

From the second update of a stage on, each update appends a line of JSON to ``$WAITS``: place in the code -> count. On a
GPU torch names each synchronizing call. On a CPU, values that the host reads are counted instead.
"""

import collections
import contextlib
import json
import os
import traceback
import warnings

import fairseq.trainer
import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
train_step = fairseq.trainer.Trainer.train_step


def place():
    """The innermost frame of fairseq or of this package."""
    for frame in reversed(traceback.extract_stack()):
        for package in ("bridle_fairseq/", "fairseq_compat/", "fairseq/"):
            if f"/{package}" in frame.filename:
                return package + frame.filename.rsplit(f"/{package}", 1)[1] + f" in {frame.name}"
    return "elsewhere"


class Reads(TorchDispatchMode):
    """Counts values that the host reads."""

    def __init__(self, counts):
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in READS:
            self.counts[place()] += 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def synchronizations(counts):
    def note(message, *_, **__):
        counts[place()] += "synchronizing CUDA operation" in str(message)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def counted_train_step(self, samples, *args, **kwargs):
    model = self.get_model()
    starts = model.schedule.starts
    after = self.get_num_updates()
    if after in starts or after + 1 in (*starts, model.schedule.total_updates):  # a stage's first and last update wait
        return train_step(self, samples, *args, **kwargs)
    counts = collections.Counter()
    with (synchronizations if self.cuda else Reads)(counts):
        logged = train_step(self, samples, *args, **kwargs)
    with open(os.environ["WAITS"], "a") as file:
        file.write(json.dumps({name: count for name, count in counts.items() if count}) + "\n")
    return logged


fairseq.trainer.Trainer.train_step = counted_train_step
