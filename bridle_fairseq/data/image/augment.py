"""Augmentation of images in training: crops and flips; for fine-tuning torchvision's RandAugment and random erasing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import

CROP_ATTEMPTS = 10
LOG_RATIO = float(np.log(4 / 3))
MEAN_OF_IMAGENET = (124, 116, 104)  # what is erased is near 0 after normalisation
MAX_MAGNITUDE = 30
DRAWING = {torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial} | {
    getattr(Tensor, f"{name}_") for name in ("uniform", "normal", "random", "bernoulli", "exponential", "log_normal")
}


@dataclass(frozen=True)
class ImageAugment:
    """What may happen to an image while training.

    Attributes:
        crop: show a random part of the image.
        min_area: the smallest share of the image's area that such a part may be.
        flip: mirror half of the images, left to right.
    """

    crop: bool = True
    min_area: float = 0.2
    flip: bool = True

    def box(self, width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, upper, right, lower of the part: an even choice of area, sides from 3:4 to 4:3, anywhere it fits.

        Source: the crops of Inception (arXiv 1409.4842, section 6), as torchvision's RandomResizedCrop has them: after
        ten choices that do not fit, the largest part in the middle whose sides are in that range.
        """
        for _ in range(CROP_ATTEMPTS):
            area = width * height * random.uniform(self.min_area, 1.0)
            ratio = np.exp(random.uniform(-LOG_RATIO, LOG_RATIO))
            w, h = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
            if 0 < w <= width and 0 < h <= height:
                left, upper = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
                return left, upper, left + w, upper + h
        w = min(width, max(1, round(height * np.exp(LOG_RATIO))))
        h = min(height, max(1, round(width * np.exp(LOG_RATIO))))
        left, upper = (width - w) // 2, (height - h) // 2
        return left, upper, left + w, upper + h


def load_transforms() -> Any:
    """The module ``torchvision.transforms.v2``.

    Raises:
        InputError: it is not installed, or does not fit this torch.
    """
    with optional_import("rand_augment, erase and cutmix need torchvision", "'bridle_fairseq[images]'"):
        from torchvision.transforms import v2
    return v2


class _DrawnFrom(TorchFunctionMode):
    """Within it, what this thread draws comes from a generator of its own.

    torchvision's transforms take none: they draw from the process's, in which other threads draw meanwhile.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = {"generator": self.generator} if func in DRAWING else {}
        return func(*args, **own, **(kwargs or {}))


@dataclass(frozen=True)
class StrongImageAugment:
    """What else may happen to an image while it is fine-tuned on; to all frames of a clip the same.

    Attributes:
        rand_augment: operations drawn for each image (of colour, sharpness and geometry); 0: none.
        rand_magnitude: their strength, 0 to 30.
        erase: probability with which a rectangle of 2 to 33 % of the image is blanked out.

    Source: RandAugment (arXiv 1909.13719) and random erasing (arXiv 1708.04896), both of torchvision.

    Raises:
        InputError: values that cannot work, or torchvision is missing.
    """

    rand_augment: int = 0
    rand_magnitude: int = 9
    erase: float = 0.0

    def __post_init__(self) -> None:
        if self.rand_augment < 0 or not 0 <= self.rand_magnitude <= MAX_MAGNITUDE:
            found = f"task.rand_augment is {self.rand_augment} with task.rand_magnitude {self.rand_magnitude}"
            raise InputError(f"{found}; expected a number of operations, 0 or more, and 0 to {MAX_MAGNITUDE}")
        if not 0 <= self.erase <= 1:
            raise InputError(f"task.erase is {self.erase}; expected a probability, 0 to 1")
        if self:
            load_transforms()  # that it is missing is known before training

    def __bool__(self) -> bool:
        return bool(self.rand_augment or self.erase)

    @cached_property
    def _transforms(self) -> list[Any]:
        v2, chosen = load_transforms(), []
        if self.rand_augment:
            fill = [float(value) for value in MEAN_OF_IMAGENET]
            chosen.append(v2.RandAugment(self.rand_augment, self.rand_magnitude, num_magnitude_bins=31, fill=fill))
        if self.erase:
            chosen.append(v2.RandomErasing(self.erase, value=list(MEAN_OF_IMAGENET)))
        return chosen

    def __call__(self, pixels: Tensor, random: np.random.Generator) -> Tensor:
        """Frames of one item, n x 3 x height x width uint8; every choice follows from ``random``."""
        with _DrawnFrom(torch.Generator().manual_seed(int(random.integers(2**63)))):
            for transform in self._transforms:
                pixels = transform(pixels)
        return pixels
