"""Augmentation of waveforms in training: circular shift and gain, as in BEATs (arXiv 2212.09058)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AudioAugment:
    """Random augmentation of a waveform.

    Attributes:
        roll: shift the clip circularly by a random number of samples.
        gain: multiply the clip by Beta(10, 10) + 0.5, which is between 0.5 and 1.5 and mostly near 1.
    """

    roll: bool = True
    gain: bool = True

    def __call__(self, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """An augmented copy of float32 samples (S); all randomness comes from ``random``."""
        if self.roll:
            samples = np.roll(samples, int(random.integers(len(samples))))
        return self._scaled(samples, random)

    def with_codes(
        self, samples: np.ndarray, codes: np.ndarray, rows: int, patch_samples: int, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment a clip and shift its codes with it, by whole patches.

        The rest at the end, shorter than a patch, is not shifted. A gain leaves the codes as they are, so the encoder
        learns to ignore it.

        Args:
            samples: S.
            codes: N x K of a grid whose first axis is time.
            rows: patches per time step.
            patch_samples: samples per time step.
            random: source of all randomness.
        """
        steps = min(len(samples) // patch_samples, len(codes) // rows)
        if self.roll and steps > 1:
            shift = int(random.integers(steps))
            samples = _roll_first(samples, steps * patch_samples, shift * patch_samples)
            codes = _roll_first(codes, steps * rows, shift * rows)
        return self._scaled(samples, random), codes

    def _scaled(self, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return samples * np.float32(random.beta(10.0, 10.0) + 0.5) if self.gain else samples


def _roll_first(values: np.ndarray, count: int, shift: int) -> np.ndarray:
    """A copy whose first ``count`` rows are shifted circularly."""
    return np.concatenate([np.roll(values[:count], shift, axis=0), values[count:]])
