"""torchaudio's Python part works with a CPU build of torch."""

import pytest

FILTER_BANK = """
import torch
from torchaudio.compliance.kaldi import fbank
from torchaudio.functional import resample
features, resampled = fbank(torch.randn(1, 16000), num_mel_bins=128), resample(torch.randn(1, 800), 8000, 16000)
report([list(features.shape), list(resampled.shape)])
"""
WITHOUT = ["allow_torchaudio_without_cuda"]


def test_kaldi_fbank_works(run_python):
    outcome, stderr = run_python(FILTER_BANK)
    assert outcome == [[98, 128], [1, 1600]], stderr


def test_import_fails_without_patch(run_python):
    outcome, stderr = run_python(FILTER_BANK, without=WITHOUT)
    if outcome is not None:
        pytest.skip("the C++ extension of this torchaudio matches this torch")
    assert "OSError" in stderr
