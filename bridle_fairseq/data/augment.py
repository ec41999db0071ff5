"""Augmentation while training: of waveforms (circular roll and gain, as the BEATs line of work) and of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CROP_ATTEMPTS = 10
LOG_RATIO = float(np.log(4 / 3))


@dataclass(frozen=True)
class Augment:
    """What may happen to a clip while training.

    Attributes:
        roll: shift the clip in a circle by a random number of samples.
        gain: multiply the clip by Beta(10, 10) + 0.5, that is by 0.5 to 1.5 and mostly by about 1.
    """

    roll: bool = True
    gain: bool = True

    def __call__(self, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Augmented copy of float32 samples (S); every choice comes from ``random``."""
        if self.roll:
            samples = np.roll(samples, int(random.integers(len(samples))))
        if self.gain:
            samples = samples * np.float32(random.beta(10.0, 10.0) + 0.5)
        return samples


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

    def box(self, width: int, height: int, random: np.random.Generator) -> tuple[float, float, float, float]:
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
