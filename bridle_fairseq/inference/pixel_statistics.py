"""Statistics of an image that need no learning: how often colours are, and in which directions edges run."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

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
