"""What comes without learning: statistics of the input that a model's features should beat, beside them in a probe."""

from __future__ import annotations

from typing import Any

import numpy as np

from bridle_fairseq.data.artifacts.features import FeatureArray
from bridle_fairseq.inference.extractors import Batch, Extractor, LogMelFeatures
from bridle_fairseq.inference.pixel_statistics import BINS, CELLS, ORIENTATIONS, colour_histogram, orientation_histogram
from bridle_fairseq.nn.frontend import unit_range


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
