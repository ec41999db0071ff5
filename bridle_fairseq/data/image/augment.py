"""Image augmentation: crops and flips; for fine-tuning also torchvision's RandAugment and random erasing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import

CROP_ATTEMPTS = 10
LOG_RATIO = float(np.log(4 / 3))
IMAGENET_MEAN = (124, 116, 104)  # near 0 after normalization
MAX_MAGNITUDE = 30
RANDOM_FUNCTIONS = {
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial),
    *(Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_, Tensor.log_normal_),
}


@dataclass(frozen=True)
class ImageAugment:
    """Random crops and flips.

    Attributes:
        crop: crop at random.
        min_area: minimum share of the image's area in a crop.
        flip: mirror half of the images horizontally.
    """

    crop: bool = True
    min_area: float = 0.2
    flip: bool = True

    def box(self, width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, upper, right, lower of a crop: uniform area, aspect ratio from 3:4 to 4:3, uniform position.

        After ten draws that do not fit, the largest centre crop with an aspect ratio in that range. Source: Inception
        crops (arXiv 1409.4842, section 6), as in torchvision's RandomResizedCrop.
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


def load_transforms() -> ModuleType:
    """The module ``torchvision.transforms.v2``.

    Raises:
        InputError: it is not installed, or does not fit this torch.
    """
    with optional_import("rand_augment, erase and cutmix need torchvision", "'bridle_fairseq[images]'"):
        from torchvision.transforms import v2
    return v2


class _UseGenerator(TorchFunctionMode):
    """A mode in which this thread's random functions use the given generator.

    torchvision's transforms accept none. They draw from the global generator, which all threads share.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        option = {"generator": self.generator} if func in RANDOM_FUNCTIONS else {}
        return func(*args, **option, **(kwargs or {}))


@dataclass(frozen=True)
class StrongImageAugment:
    """RandAugment and random erasing for fine-tuning; all frames of a clip are changed alike.

    Attributes:
        rand_augment: number of operations per image (colour, sharpness, geometry); 0: none.
        rand_magnitude: their strength, 0 to 30.
        erase: probability of erasing a rectangle of 2 to 33 % of the image.

    Source: RandAugment (arXiv 1909.13719) and random erasing (arXiv 1708.04896), by torchvision.

    Raises:
        InputError: invalid values, or torchvision is missing.
    """

    rand_augment: int = 0
    rand_magnitude: int = 9
    erase: float = 0.0

    def __post_init__(self) -> None:
        if self.rand_augment < 0 or not 0 <= self.rand_magnitude <= MAX_MAGNITUDE:
            raise InputError(
                f"task.rand_augment is {self.rand_augment} with task.rand_magnitude {self.rand_magnitude}; expected a "
                f"number of operations, 0 or more, and 0 to {MAX_MAGNITUDE}"
            )
        if not 0 <= self.erase <= 1:
            raise InputError(f"task.erase is {self.erase}; expected a probability, 0 to 1")
        if self:
            load_transforms()  # a missing package must be reported before training

    def __bool__(self) -> bool:
        return bool(self.rand_augment or self.erase)

    @cached_property
    def _transforms(self) -> list[Any]:
        v2, chosen = load_transforms(), []
        if self.rand_augment:
            fill = [float(value) for value in IMAGENET_MEAN]
            chosen.append(v2.RandAugment(self.rand_augment, self.rand_magnitude, num_magnitude_bins=31, fill=fill))
        if self.erase:
            chosen.append(v2.RandomErasing(self.erase, value=list(IMAGENET_MEAN)))
        return chosen

    def __call__(self, pixels: Tensor, random: np.random.Generator) -> Tensor:
        """Augment the frames of one item, n x 3 x height x width uint8; all randomness comes from ``random``."""
        with _UseGenerator(torch.Generator().manual_seed(int(random.integers(2**63)))):
            for transform in self._transforms:
                pixels = transform(pixels)
        return pixels
