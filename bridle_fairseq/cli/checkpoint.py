"""Loading a checkpoint for a command: what a user may get wrong becomes one sentence."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import file_sha256

# what a model of this name has and the others lack
PARTS = {
    "bridle": "quantizer",
    "bridle_classifier": "head",
    "bridle_ctc": "frame_head",
    "bridle_mel_decoder": "log_mel",
}
ENCODERS = ("bridle", "bridle_classifier", "bridle_ctc")  # what has an encoder, whose features can be taken


def load_model(path: str, device: str = "cpu", names: Sequence[str] = ("bridle",)) -> tuple[Any, Any]:
    """A checkpoint's model, in eval mode on a device, and its task.

    Args:
        path: of the checkpoint.
        device: where the model shall be.
        names: the registered names of which the model must have one.

    Raises:
        InputError: no such file, not a checkpoint, or of another model.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such checkpoint; expected a file that fairseq-hydra-train wrote")
    import fairseq.checkpoint_utils

    import bridle_fairseq

    bridle_fairseq.register()
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    try:
        models, _, task = fairseq.checkpoint_utils.load_model_ensemble_and_task([path])
    except InputError:
        raise
    except Exception as error:  # what is no checkpoint fails in any way there is
        reason = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise InputError(f"{path}: not a checkpoint that fairseq can load ({reason[:160]})") from None
    model = models[0]
    if not any(hasattr(model, PARTS[name]) for name in names):
        expected = " or ".join(map(repr, names))
        raise InputError(f"{path}: a checkpoint of {type(model).__name__}; expected one of the model {expected}")
    return model.to(device).eval(), task


def check_checkpoint(path: str, what: str, sha256: str, checkpoint: str) -> None:
    """See that what a file describes was made by this checkpoint.

    Args:
        path: of the file.
        what: it describes, for the error.
        sha256: of the checkpoint that made it.
        checkpoint: path of the one that must have made it.

    Raises:
        InputError: another one made it, or there is no such checkpoint.
    """
    if not os.path.isfile(checkpoint):
        raise InputError(f"{checkpoint}: no such checkpoint; expected a file that fairseq-hydra-train wrote")
    found = file_sha256(checkpoint)
    if sha256 != found:
        raise InputError(
            f"{path}: {what} of another checkpoint (sha256 {sha256[:12]}); expected those of {checkpoint} "
            f"({found[:12]})"
        )


def choose_device(name: str | None) -> str:
    """The device a user named, else this process's GPU where there is one, else the CPU.

    Raises:
        InputError: a device that torch does not have here.
    """
    import torch

    if name is None:
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: torch cannot use it here ({str(error).splitlines()[0]})") from None
    return name
