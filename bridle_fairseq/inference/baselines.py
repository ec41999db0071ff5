"""Baselines for probes: statistics of the input, without a trained model."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bridle_fairseq.data.artifacts.features import FeatureArray
from bridle_fairseq.inference.extractors import EncoderModel, Extractor, LogMelFeatures, SegmentBatch
from bridle_fairseq.nn.frontend import AudioFrontEnd, unit_range

BINS = 4  # of each color channel
ORIENTATIONS, CELLS = 8, 4  # directions of edges; cells along each side


def colour_histogram(image: Tensor) -> Tensor:
    """Fraction of the pixels in each of BINS^3 cells of RGB: 3 x height x width from 0 to 1 -> BINS^3."""
    red, green, blue = (image * BINS).long().clamp(0, BINS - 1).flatten(1)
    counts = torch.bincount((red * BINS + green) * BINS + blue, minlength=BINS**3)
    return counts / counts.sum()


def orientation_histogram(image: Tensor) -> Tensor:
    """Gradient magnitude by direction in CELLS x CELLS cells of an image: 3 x height x width -> CELLS^2 * ORIENTATIONS.

    Source: histograms of oriented gradients (Dalal and Triggs, CVPR 2005), without overlapping blocks: each cell is
    normalized by its own L2 norm.
    """
    grey = functional.pad(image.mean(0)[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    right, down = grey[1:-1, 2:] - grey[1:-1, :-2], grey[2:, 1:-1] - grey[:-2, 1:-1]
    magnitude = (right.square() + down.square()).sqrt()
    # modulo pi: the direction of an edge has no sign
    direction = (torch.atan2(down, right) % math.pi * (ORIENTATIONS / math.pi)).long().clamp(max=ORIENTATIONS - 1)
    height, width = magnitude.shape
    row = torch.arange(height, device=image.device) * CELLS // height
    column = torch.arange(width, device=image.device) * CELLS // width
    index = (row[:, None] * CELLS + column) * ORIENTATIONS + direction  # height x width
    histogram = torch.zeros(CELLS**2 * ORIENTATIONS, device=image.device)
    histogram.scatter_add_(0, index.flatten(), magnitude.flatten())
    return functional.normalize(histogram.view(-1, ORIENTATIONS), dim=1).flatten()


class PixelFeatures:
    """Colors and edge directions of an image, or of the middle frame of a clip."""

    def __init__(self) -> None:
        self.histograms = {"colour histogram": colour_histogram, "edge histogram": orientation_histogram}
        widths = BINS**3, ORIENTATIONS * CELLS**2
        self.arrays = tuple(
            FeatureArray("pixels", name, 0, width) for name, width in zip(self.histograms, widths, strict=True)
        )

    def extract_batch(self, batch: SegmentBatch) -> list[dict[str, np.ndarray]]:
        """The statistics of each image, by array name."""
        images, padding = unit_range(batch.source), batch.source_padding
        if images.dim() == 5:  # B x 3 x frames x height x width: one frame, so without motion
            middle = images.shape[2] // 2
            images, padding = images[:, :, middle], None if padding is None else padding[:, middle]
        results = []
        for number in range(len(images)):
            image = images[number]
            if padding is not None:
                rows, columns = (int((~padding[number]).any(axis).sum()) for axis in (1, 0))
                image = image[:, :rows, :columns]
            values = [histogram(image).cpu().numpy() for histogram in self.histograms.values()]
            results.append({array.name: value for array, value in zip(self.arrays, values, strict=True)})
        return results

    def merge_segments(self, segments: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The statistics of the one segment that an image or a clip is."""
        (features,) = segments
        return features


def baseline_of(model: EncoderModel) -> Extractor:
    """The baseline for a model's modality."""
    front_end = model.front_end
    return LogMelFeatures(front_end) if isinstance(front_end, AudioFrontEnd) else PixelFeatures()
