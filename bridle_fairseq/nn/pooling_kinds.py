"""The poolings by name. This file does not import torch, so that ``--help`` stays fast."""

from __future__ import annotations

import math
from typing import NamedTuple

SEGMENTS = 4  # parts of a clip's time
REGIONS = {2: (4, 4), 3: (4, 2, 2)}  # parts along each axis of the grid: of images, of video
# by summary: vectors per clip, or per frequency row
VECTORS = {"mean": 1, "statistics": 2, "segments": SEGMENTS, "regions": math.prod(REGIONS[2])}


class Pooling(NamedTuple):
    """What a pooling keeps of the patches of a clip."""

    summary: str  # mean; statistics: mean and standard deviation; segments, regions: a mean for each part of the clip
    by_row: bool  # each frequency row by itself, so for sound only
    text: str  # for help texts and pages

    @property
    def of(self) -> str:
        """What it is for: ``sound``, ``images and video``, or empty: all."""
        return "sound" if self.by_row else "images and video" if self.summary == "regions" else ""


POOLINGS = {
    "mean": Pooling("mean", False, "mean of all patches"),
    "frequency": Pooling("mean", True, "time mean, frequency rows kept apart"),
    "class_token": Pooling("mean", False, "class token"),
    "statistics": Pooling("statistics", False, "mean and deviation of all patches"),
    "frequency_statistics": Pooling("statistics", True, "mean and deviation over time, frequency rows kept apart"),
    "segments": Pooling("segments", True, "means of four segments, frequency rows kept apart"),
    "regions": Pooling("regions", False, "means of 4 x 4 parts, of a video 4 x 2 x 2"),
}
OF_SOUND = tuple(name for name, pooling in POOLINGS.items() if pooling.of != "images and video")
OF_PIXELS = tuple(name for name, pooling in POOLINGS.items() if pooling.of != "sound")
PROBED_SOUND = ("mean", "statistics", "frequency", "frequency_statistics")  # by default
PROBED_PIXELS = ("mean", "statistics", "class_token", "regions")

_TEXTS = [f"{name}{f' ({p.of})' if p.of else ''}: {p.text}" for name, p in POOLINGS.items()]
POOLINGS_HELP = "; ".join(_TEXTS)
