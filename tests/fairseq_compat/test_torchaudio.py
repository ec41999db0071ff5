"""torchaudio's Python part imports beside a CPU build of torch."""

import pytest

FILTER_BANK = """
import torch
from torchaudio.compliance.kaldi import fbank
from torchaudio.functional import resample
features, resampled = fbank(torch.randn(1, 16000), num_mel_bins=128), resample(torch.randn(1, 800), 8000, 16000)
report([list(features.shape), list(resampled.shape)])
"""
WITHOUT = ["import_torchaudio_beside_cpu_torch"]


def test_kaldi_filter_bank_can_be_used(run_python):
    outcome, stderr = run_python(FILTER_BANK)
    assert outcome == [[98, 128], [1, 1600]], stderr


def test_import_fails_without_the_patch(run_python):
    outcome, stderr = run_python(FILTER_BANK, without=WITHOUT)
    if outcome is not None:
        pytest.skip("the C++ part of this torchaudio fits this torch")
    assert "OSError" in stderr
