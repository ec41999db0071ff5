"""Waveforms from log-mel spectrograms, and missing torchaudio."""

import builtins

import pytest
import torch

from bridle_fairseq.nn.fbank import LogMel
from bridle_fairseq.units.griffin_lim import waveform
from bridle_fairseq.utils.errors import InputError

ANALYSIS = LogMel()


def tones():
    """A tone that begins in the middle, and a chord."""
    time = torch.arange(8000) / 16000
    late = 0.3 * torch.sin(2 * torch.pi * 1000 * time) * (time > 0.25)
    chord = 0.1 * sum(torch.sin(2 * torch.pi * hz * time) for hz in (300, 700, 2500))
    noise = 1e-3 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    return torch.stack([late, chord]) + noise


def test_log_mel_of_waveform_is_close():
    pytest.importorskip("torchaudio")
    waves = tones()
    log_mel = ANALYSIS(waves)[0]
    samples = waveform(log_mel, ANALYSIS)
    assert samples.shape == (2, (log_mel.shape[1] - 1) * 160 + 400)
    again = ANALYSIS(samples)[0]
    loud = log_mel > log_mel.amax() - 9
    assert (again - log_mel)[loud].abs().mean() < 0.5  # 2 dB
    # the tone begins where it began
    energy = samples[0].unfold(0, 400, 400).square().mean(1)
    assert energy[:8].max() < 0.01 * energy[11:19].mean()
    assert energy[11:19].mean().item() == pytest.approx(0.045, rel=0.5)
    spectrum = torch.fft.rfft(samples[0, 5000:7000]).abs()
    assert spectrum.argmax() * 8 == pytest.approx(1000, abs=16)
    torch.testing.assert_close(waveform(log_mel, ANALYSIS), samples)


def test_missing_torchaudio(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "torchaudio":
            raise ImportError("No module named 'torchaudio'")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"needs torchaudio .*bridle_fairseq\[units\]"):
        waveform(torch.zeros(1, 4, 128), ANALYSIS)
