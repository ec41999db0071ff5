"""The poolings by name. This file does not import torch, so that ``--help`` stays fast."""

from __future__ import annotations

from typing import NamedTuple

SEGMENTS = 4  # parts of a clip's time
VECTORS = {"mean": 1, "statistics": 2, "segments": SEGMENTS}  # by summary: vectors per clip, or per frequency row


class Pooling(NamedTuple):
    """What a pooling keeps of the patches of a clip."""

    summary: str  # "mean"; "statistics": mean and standard deviation; "segments": a mean for each part of the clip
    by_row: bool  # each frequency row by itself, so for sound only
    text: str  # for help texts and pages


POOLINGS = {
    "mean": Pooling("mean", False, "mean of all patches"),
    "frequency": Pooling("mean", True, "time mean, frequency rows kept apart"),
    "class_token": Pooling("mean", False, "class token"),
    "statistics": Pooling("statistics", False, "mean and deviation of all patches"),
    "frequency_statistics": Pooling("statistics", True, "mean and deviation over time, frequency rows kept apart"),
    "segments": Pooling("segments", True, "means of four segments, frequency rows kept apart"),
}
PROBED_SOUND = ("mean", "statistics", "frequency", "frequency_statistics")  # by default
PROBED_PIXELS = ("mean", "statistics", "class_token")

_TEXTS = [f"{name}{' (sound)' * pooling.by_row}: {pooling.text}" for name, pooling in POOLINGS.items()]
POOLINGS_HELP = "; ".join(_TEXTS)
