"""Augmentation of waveforms in training: circular roll and gain, as in BEATs (arXiv 2212.09058)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AudioAugment:
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
