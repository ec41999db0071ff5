"""Runs before a training command: what tests want to know about each update of this rank.

With ``$OBSERVE``, a line of JSON about each update goes to ``$OBSERVE.{rank}``. With ``$HOLD``, after update
``$HOLD_AT`` the run appears in ``$HOLD.{rank}`` and waits there to be killed.
"""

import hashlib
import json
import os
import time

import fairseq.trainer

train_step = fairseq.trainer.Trainer.train_step


def digest(tensors):
    """sha256 of the bytes of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().view(-1).numpy().tobytes())
    return found.hexdigest()


def record(trainer, samples, logged):
    model = trainer.get_model()
    return {
        "update": trainer.get_num_updates(),
        "loss": logged["loss"],
        "parameters": digest(model.parameters()),
        "buffers": digest(model.buffers()),
        "codes": model.quantizer.codebooks.codes.tolist(),
        "ids": [sample["id"].tolist() if sample else [] for sample in samples],
    }


def observed(self, samples, *args, **kwargs):
    logged = train_step(self, samples, *args, **kwargs)
    rank = self.data_parallel_rank
    if "OBSERVE" in os.environ:
        with open(f"{os.environ['OBSERVE']}.{rank}", "a") as file:
            file.write(json.dumps(record(self, samples, logged)) + "\n")
    if "HOLD" in os.environ and self.get_num_updates() == int(os.environ["HOLD_AT"]):
        open(f"{os.environ['HOLD']}.{rank}", "w").close()
        time.sleep(600)
    return logged


fairseq.trainer.Trainer.train_step = observed
