"""The voice of the synthetic words: phonemes, spectra, and what differs between clips."""

from __future__ import annotations

import numpy as np
import pytest

from bridle_fairseq.demo.synthesize import CLASSES
from bridle_fairseq.demo.voice import FORMANTS_HZ, PAUSE_SECONDS, Voice, _course, _phonemes, say

RATE = 16000
AVERAGE = Voice(120.0, drift=0.0, tract=1.0, damping=1.0, pace=1.0, slope=0.0, peak_hz=1000.0, peak=0.0)


def octaves(wave: np.ndarray) -> np.ndarray:
    """Shares of the power in eight octave bands."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    band = np.clip(np.log2(np.fft.rfftfreq(len(wave), 1 / RATE)[1:] / 60), 0, 7).astype(int)
    shares = np.bincount(band, power[1:], minlength=8)
    return shares / shares.sum()


@pytest.mark.parametrize("word", CLASSES[1:])
def test_the_mean_spectrum_of_all_words_is_that_of_the_voice(word: str) -> None:
    one, other = (say(np.random.default_rng(5), name, 5.0, RATE) for name in (CLASSES[0], word))
    another_voice = say(np.random.default_rng(6), word, 5.0, RATE)
    assert np.abs(octaves(one) - octaves(other)).max() < 0.05
    assert np.abs(octaves(one) - octaves(another_voice)).max() > 0.1


def test_phonemes_follow_the_word_and_words_are_apart() -> None:
    phonemes = _phonemes(np.random.default_rng(0), "samitu", AVERAGE, 3.0)
    assert "".join(phoneme.name for phoneme in phonemes) == "samitu" * (len(phonemes) // 6)
    assert phonemes[0].begin <= 0 and phonemes[-1].end >= 3.0 - PAUSE_SECONDS[1]
    gaps = [b.begin - a.end for a, b in zip(phonemes, phonemes[1:])]  # noqa: B905
    assert all((gap >= PAUSE_SECONDS[0]) == (number % 6 == 5) for number, gap in enumerate(gaps))


@pytest.mark.parametrize("vowel", ["a", "i", "u"])
def test_the_resonances_are_those_of_the_vowel_in_its_middle(vowel: str) -> None:
    phonemes = _phonemes(np.random.default_rng(0), "samitu", AVERAGE, 2.0)
    formants, loudness = _course(phonemes, AVERAGE, 2.0)
    middle = next(int((p.begin + p.end) / 2 / 0.005) for p in phonemes if p.name == vowel and p.begin > 0)
    np.testing.assert_allclose(formants[middle], FORMANTS_HZ[vowel])
    assert loudness[middle] == 1.0
    silent = next(int((p.begin + 0.01) / 0.005) for p in phonemes if p.name == "t" and p.begin > 0)
    assert loudness[silent] == 0.0


def test_the_power_of_a_vowel_lies_at_its_resonances() -> None:
    def power_near(word: str, frequency_hz: int) -> float:
        power, count = 0.0, 0
        for seed in range(8):
            wave = say(np.random.default_rng(seed), word, 2.0, RATE)
            spectrum = np.abs(np.fft.rfft(wave / wave.std())) ** 2
            near = np.abs(np.log2(np.fft.rfftfreq(len(wave), 1 / RATE)[1:] / frequency_hz)) < 0.3
            power, count = power + spectrum[1:][near].sum() / spectrum.sum(), count + 1
        return power / count

    assert power_near("a", 900) > 2 * power_near("i", 900)
    assert power_near("i", 2250) > 2 * power_near("u", 2250)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_short_clips_at_any_rate(rate: int) -> None:
    for seed in range(10):
        wave = say(np.random.default_rng(seed), "tamusi", 0.5, rate)
        assert wave.shape == (rate // 2,) and np.isfinite(wave).all() and np.abs(wave).max() > 0
