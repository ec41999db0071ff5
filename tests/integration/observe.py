"""Runs before a training command and records each update of this rank for the tests.

With ``$OBSERVE``, each update appends a line of JSON to ``$OBSERVE.{rank}``. With ``$HOLD``, the run creates
``$HOLD.{rank}`` after update ``$HOLD_AT`` and waits to be killed.
"""

import hashlib
import json
import os
import time

import fairseq.trainer

train_step = fairseq.trainer.Trainer.train_step


def digest(tensors):
    """sha256 of the bytes of tensors."""
    sha256 = hashlib.sha256()
    for tensor in tensors:
        sha256.update(tensor.detach().contiguous().view(-1).numpy().tobytes())
    return sha256.hexdigest()


def record(trainer, samples, logged):
    """The record of an update."""
    model = trainer.get_model()
    return {
        "update": trainer.get_num_updates(),
        "loss": logged["loss"],
        "parameters": digest(model.parameters()),
        "buffers": digest(model.buffers()),
        "codes": model.quantizer.codebooks.codes.tolist(),
        "ids": [sample["id"].tolist() if sample else [] for sample in samples],
    }


def observed_train_step(self, samples, *args, **kwargs):
    logged = train_step(self, samples, *args, **kwargs)
    rank = self.data_parallel_rank
    if "OBSERVE" in os.environ:
        with open(f"{os.environ['OBSERVE']}.{rank}", "a") as file:
            file.write(json.dumps(record(self, samples, logged)) + "\n")
    if "HOLD" in os.environ and self.get_num_updates() == int(os.environ["HOLD_AT"]):
        open(f"{os.environ['HOLD']}.{rank}", "w").close()
        time.sleep(600)
    return logged


fairseq.trainer.Trainer.train_step = observed_train_step
