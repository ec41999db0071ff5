"""The resampler that replaces soxr if it is not installed."""

import sys

import numpy as np
import pytest
import soxr
import torch

from bridle_fairseq.data.audio.resample import resample, resample_by_torch, resampled_length
from bridle_fairseq.utils.errors import InputError

RATES = [(44100, 16000), (48000, 16000), (8000, 16000), (22050, 16000), (11025, 16000), (16000, 48000), (12345, 16000)]


def tones(rate, hertz, seconds=0.5):
    time = np.arange(int(rate * seconds)) / rate
    return sum(np.sin(2 * np.pi * f * time + f) for f in hertz).astype(np.float32)


@pytest.mark.parametrize(("rate", "wanted"), RATES)
def test_tones_are_preserved(rate, wanted):
    hertz = [f for f in (100, 1234, 3000, 6800) if f < 0.42 * min(rate, wanted)]
    resampled = resample_by_torch(torch.from_numpy(tones(rate, hertz)), rate, wanted).numpy()
    expected = tones(wanted, hertz)[: len(resampled)]
    inside = slice(wanted // 50, -wanted // 50)  # without the edges, where the filter sees silence
    assert len(resampled) == resampled_length(rate // 2, rate, wanted)
    assert np.abs(resampled[inside] - expected[: len(resampled)][inside]).max() < 1e-3


def test_no_aliasing():
    resampled = resample_by_torch(torch.from_numpy(tones(44100, [9000, 15000])), 44100, 16000).numpy()
    assert np.abs(resampled[400:-400]).max() < 1e-3


@pytest.mark.parametrize(("rate", "wanted"), RATES)
def test_close_to_soxr_in_passband(rate, wanted):
    noise = np.random.default_rng(0).standard_normal(rate // 2)
    spectrum = np.fft.rfft(noise)
    spectrum[int(0.8 * min(1, wanted / rate) * len(spectrum)) :] = 0
    clip = np.fft.irfft(spectrum, len(noise)).astype(np.float32)
    ours, theirs = resample_by_torch(torch.from_numpy(clip), rate, wanted).numpy(), soxr.resample(clip, rate, wanted)
    inside = slice(wanted // 50, min(len(ours), len(theirs)) - wanted // 50)
    assert np.abs(ours[inside] - theirs[inside]).max() < 5e-3


def test_resample_without_soxr(monkeypatch):
    clip = tones(44100, [440])
    expected = resample(clip, 44100, 16000)
    monkeypatch.setitem(sys.modules, "soxr", None)
    resampled = resample(clip, 44100, 16000)
    assert resampled.dtype == np.float32 and len(resampled) == 8000
    assert np.abs(resampled[400:-400] - expected[400 : len(resampled) - 400]).max() < 1e-3


def test_rates_without_a_common_divisor_need_soxr() -> None:
    resample_by_torch(torch.zeros(441), 44100, 48000)
    resample_by_torch(torch.zeros(441), 192000, 11025)
    with pytest.raises(InputError, match="sound of 16000 Hz for a model of 999983 Hz; expected rates with a small"):
        resample_by_torch(torch.zeros(16), 16000, 999983)
