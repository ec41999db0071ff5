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
        return self._louder(samples, random)

    def with_codes(
        self, samples: np.ndarray, codes: np.ndarray, rows: int, patch_samples: int, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same of a clip and its codes: it is rolled by whole patches, and its codes go along.

        What is left at the end, less than a patch, stays where it is. Codes are those of the clip as it was: a gain
        does not change them, and the encoder learns that it should not.

        Args:
            samples: S.
            codes: N x K of a grid whose first axis is time.
            rows: patches of a step of time.
            patch_samples: from one patch of the grid to the next.
            random: of every choice.
        """
        steps = min(len(samples) // patch_samples, len(codes) // rows)
        if self.roll and steps > 1:
            shift = int(random.integers(steps))
            samples = _roll_first(samples, steps * patch_samples, shift * patch_samples)
            codes = _roll_first(codes, steps * rows, shift * rows)
        return self._louder(samples, random), codes

    def _louder(self, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return samples * np.float32(random.beta(10.0, 10.0) + 0.5) if self.gain else samples


def _roll_first(values: np.ndarray, count: int, shift: int) -> np.ndarray:
    """A copy whose first ``count`` rows are shifted in a circle."""
    return np.concatenate([np.roll(values[:count], shift, axis=0), values[count:]])


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
