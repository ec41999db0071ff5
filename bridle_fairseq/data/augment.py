"""Augmentation of waveforms: circular roll and gain, as the BEATs line of work uses them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
