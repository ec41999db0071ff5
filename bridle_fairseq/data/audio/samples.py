"""Which samples a model can be given."""

from __future__ import annotations

import numpy as np

# Sound is within [-1, 1], but some float files hold unscaled integers, up to 2^31. That does no harm: the power of a
# spectrum overflows only from about 1e11. Damaged floats and integers that were read as floats are mostly beyond.
MAX_SAMPLE = 2.0**31


def unusable_sample(samples: np.ndarray, start: int = 0) -> str | None:
    """The first sample that is NaN, infinite or beyond :data:`MAX_SAMPLE`, as a sentence; None if there is none.

    Args:
        samples: frames, or frames x channels.
        start: number of the first frame.
    """
    # NaN passes through both, and comparisons with it are false
    if not samples.size or (samples.min() >= -MAX_SAMPLE and samples.max() <= MAX_SAMPLE):
        return None
    place = np.unravel_index(int(np.argmin(np.abs(samples) <= MAX_SAMPLE)), samples.shape)
    return f"sample {start + int(place[0])} is {samples[place]:g}; expected values from -1 to 1, never beyond 2^31"
