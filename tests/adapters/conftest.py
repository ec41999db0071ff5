"""What the tests of adapters share."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def waves():
    """Three waveforms of different lengths at 16 kHz."""
    return [(0.1 * np.random.default_rng(n).standard_normal(n)).astype(np.float32) for n in (16000, 9000, 24000)]
