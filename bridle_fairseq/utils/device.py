"""Choice of the device on which a command runs a model."""

from __future__ import annotations

import os

import torch

from bridle_fairseq.utils.errors import InputError


def choose_device(name: str | None) -> str:
    """The named device; for None, this process's GPU if there is one, else the CPU.

    Raises:
        InputError: torch cannot use the device.
    """
    if name is None:
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: torch cannot use it here ({str(error).splitlines()[0]})") from None
    return name
