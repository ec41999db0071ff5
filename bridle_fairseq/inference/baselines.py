"""What comes without learning: statistics of the input that a model's features should beat, beside them in a probe."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bridle_fairseq.data.artifacts.features import FeatureArray
from bridle_fairseq.inference.extractors import Batch, Extractor, LogMelFeatures
from bridle_fairseq.nn.frontend import unit_range

BINS = 4  # of each colour
ORIENTATIONS, CELLS = 8, 4  # directions of edges; cells along either side


def colour_histogram(image: Tensor) -> Tensor:
    """Share of the pixels in each of BINS^3 cells of RGB: 3 x height x width from 0 to 1 -> BINS^3."""
    red, green, blue = (image * BINS).long().clamp(0, BINS - 1).flatten(1)
    counts = torch.bincount((red * BINS + green) * BINS + blue, minlength=BINS**3)
    return counts / counts.sum()


def orientation_histogram(image: Tensor) -> Tensor:
    """Strength of edges by direction in CELLS x CELLS parts of an image: 3 x height x width -> CELLS^2 * ORIENTATIONS.

    Source: histograms of oriented gradients (Dalal and Triggs, CVPR 2005), without their overlapping blocks: each part
    is divided by its length.
    """
    grey = functional.pad(image.mean(0)[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    right, down = grey[1:-1, 2:] - grey[1:-1, :-2], grey[2:, 1:-1] - grey[:-2, 1:-1]
    strength = (right.square() + down.square()).sqrt()
    # the direction of an edge has no sign
    direction = (torch.atan2(down, right) % math.pi * (ORIENTATIONS / math.pi)).long().clamp(max=ORIENTATIONS - 1)
    height, width = strength.shape
    row = torch.arange(height, device=image.device) * CELLS // height
    column = torch.arange(width, device=image.device) * CELLS // width
    place = (row[:, None] * CELLS + column) * ORIENTATIONS + direction
    found = torch.zeros(CELLS**2 * ORIENTATIONS, device=image.device)
    found.scatter_add_(0, place.flatten(), strength.flatten())
    return functional.normalize(found.view(-1, ORIENTATIONS), dim=1).flatten()


class PixelFeatures:
    """Colours of an image, or of the frame in the middle of a clip, and the directions of its edges."""

    def __init__(self) -> None:
        self.makers = {"colour histogram": colour_histogram, "edge histogram": orientation_histogram}
        widths = BINS**3, ORIENTATIONS * CELLS**2
        self.arrays = tuple(
            FeatureArray("pixels", name, 0, width) for name, width in zip(self.makers, widths, strict=True)
        )

    def of_batch(self, batch: Batch) -> list[dict[str, np.ndarray]]:
        """The statistics of each image, by array name."""
        images, padding = unit_range(batch.source), batch.source_padding
        if images.dim() == 5:  # what a single frame tells: no motion is in it
            middle = images.shape[2] // 2
            images, padding = images[:, :, middle], None if padding is None else padding[:, middle]
        found = []
        for number in range(len(images)):
            image = images[number]
            if padding is not None:
                rows, columns = (int((~padding[number]).any(axis).sum()) for axis in (1, 0))
                image = image[:, :rows, :columns]
            made = [maker(image).cpu().numpy() for maker in self.makers.values()]
            found.append({array.name: value for array, value in zip(self.arrays, made, strict=True)})
        return found

    def of_row(self, pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """An image or a clip is one piece."""
        (piece,) = pieces
        return piece


def baseline_of(model: Any) -> Extractor:
    """The baseline for the modality of a model."""
    return LogMelFeatures(model.front_end) if model.settings.modality == "audio" else PixelFeatures()
