"""A voice that says nonsense words: pulses and noise through the resonances of a throat, a small formant synthesizer.

Every voice has its own pitch, length of the vocal tract and pace, and is heard through its own channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# resonances in Hz, of a vocal tract of average length
FORMANTS_HZ = {"a": (750, 1250, 2600), "i": (290, 2250, 3000), "u": (320, 800, 2350), "m": (260, 1100, 2200)}
BANDWIDTHS_HZ, WEIGHTS = (70, 100, 150), (1.0, 0.6, 0.35)
LOUDNESS = {"a": 1.0, "i": 1.0, "u": 1.0, "m": 0.35, "s": 0.45, "t": 0.8}
NOISE_HZ = {"s": (3200, 7500), "t": (1800, 5000)}
SECONDS = {"a": 0.105, "i": 0.105, "u": 0.105, "m": 0.06, "s": 0.075, "t": 0.05}
BURST_SECONDS = 0.022  # of "t", after silence
PAUSE_SECONDS = (0.12, 0.2)  # between words
RINGING_SECONDS = 0.025  # of a pulse
STEP_SECONDS = 0.005  # of the course of the resonances
GLIDE_STEPS = 9  # from one phoneme's resonances to the next one's


class Voice(NamedTuple):
    """How someone speaks, and through what."""

    pitch_hz: float
    drift: float  # of the pitch over a clip, in octaves
    tract: float  # factor of all resonances
    damping: float  # factor of all bandwidths
    pace: float  # factor of all durations
    slope: float  # of the channel's gain: a power of the frequency
    peak_hz: float  # of the channel
    peak: float  # its gain beside 1

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Voice:
        """A random voice."""
        pitch_hz, peak_hz = (float(np.exp(rng.uniform(*np.log(span)))) for span in ((90, 260), (300, 3000)))
        return cls(
            pitch_hz,
            drift=rng.uniform(-0.2, 0.2),
            tract=rng.uniform(0.87, 1.17),
            damping=rng.uniform(0.8, 1.3),
            pace=rng.uniform(0.85, 1.15),
            slope=rng.uniform(-0.5, 0.5),
            peak_hz=peak_hz,
            peak=rng.uniform(0.0, 1.5),
        )


class Phoneme(NamedTuple):
    """A sound of a word; it begins and ends at these times of the clip, which may lie before it."""

    name: str
    begin: float  # in seconds
    end: float


def say(rng: np.random.Generator, word: str, seconds: float, rate: int) -> np.ndarray:
    """A random voice that repeats a word, from a random moment of it: S float64."""
    voice = Voice.draw(rng)
    phonemes = _phonemes(rng, word, voice, seconds)
    wave = _voiced(rng, phonemes, voice, seconds, rate)
    wave /= wave.std() + 1e-9
    for phoneme in phonemes:
        if phoneme.name in NOISE_HZ:
            _add_noise(rng, wave, phoneme, voice, rate)
    return _through_channel(wave, voice, rate)


def _phonemes(rng: np.random.Generator, word: str, voice: Voice, seconds: float) -> list[Phoneme]:
    """The phonemes of the repeated word, until the clip ends."""
    phonemes, time = [], -rng.uniform(0, 0.6)
    while time < seconds:
        for name in word:
            end = time + SECONDS[name] * voice.pace * rng.uniform(0.85, 1.15)
            phonemes.append(Phoneme(name, time, end))
            time = end
        time += rng.uniform(*PAUSE_SECONDS) * voice.pace
    return phonemes


def _voiced(
    rng: np.random.Generator, phonemes: Sequence[Phoneme], voice: Voice, seconds: float, rate: int
) -> np.ndarray:
    """Vowels and "m": pulses of the glottis, each of which makes the resonances of its moment ring."""
    formants, loudness = _course(phonemes, voice, seconds)  # steps x 3, steps
    nominal = np.arange(int(seconds * voice.pitch_hz * 1.5)) / voice.pitch_hz
    octaves = voice.drift * (nominal / seconds - 0.5) + 0.03 * np.sin(2 * np.pi * 4 * nominal)
    times = np.cumsum(rng.uniform(0.98, 1.02, len(nominal)) / (voice.pitch_hz * 2**octaves))
    times = times[times < seconds]
    steps = np.minimum((times / STEP_SECONDS).astype(int), len(loudness) - 1)
    times, steps = times[loudness[steps] > 0], steps[loudness[steps] > 0]
    ringing = np.arange(int(RINGING_SECONDS * rate), dtype=np.float32) / rate  # L
    decay = np.exp(-np.pi * voice.damping * np.multiply.outer(BANDWIDTHS_HZ, ringing)).astype(np.float32)  # 3 x L
    frequencies = formants[steps].astype(np.float32)  # P x 3
    strength = loudness[steps, None] * WEIGHTS * (frequencies < 0.47 * rate)  # P x 3
    wave = np.zeros(int(seconds * rate) + len(ringing))
    for formant in range(3):
        waves = np.sin(np.float32(2 * np.pi) * np.multiply.outer(frequencies[:, formant], ringing))  # P x L
        waves *= decay[formant] * strength[:, formant, None].astype(np.float32)
        for begin, pulse in zip((times * rate).astype(int), waves, strict=True):
            wave[begin : begin + len(pulse)] += pulse
    return wave[: int(seconds * rate)]


def _course(phonemes: Sequence[Phoneme], voice: Voice, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Resonances (steps x 3, in Hz) that glide from phoneme to phoneme, and loudness (steps) of what is voiced."""
    time = np.arange(0, seconds, STEP_SECONDS)
    voiced = [phoneme for phoneme in phonemes if phoneme.name in FORMANTS_HZ]
    current = np.searchsorted([phoneme.begin for phoneme in voiced], time, side="right") - 1
    current = np.maximum(current, 0)
    formants = np.array([FORMANTS_HZ[phoneme.name] for phoneme in voiced], float)[current]
    begin, end = (np.array([getattr(phoneme, side) for phoneme in voiced])[current] for side in ("begin", "end"))
    loudness = np.array([LOUDNESS[phoneme.name] for phoneme in voiced])[current]
    loudness *= np.clip(np.minimum(time - begin, end - time) / 0.015 + 0.1, 0.0, 1.0)
    loudness[(time < begin) | (time >= end)] = 0.0
    window = np.hanning(GLIDE_STEPS + 2)[1:-1]
    padded = np.pad(formants, ((GLIDE_STEPS // 2, GLIDE_STEPS // 2), (0, 0)), "edge")
    smooth = [np.convolve(column, window / window.sum(), "valid") for column in padded.T]
    return np.stack(smooth, axis=1) * voice.tract, loudness


def _add_noise(rng: np.random.Generator, wave: np.ndarray, phoneme: Phoneme, voice: Voice, rate: int) -> None:
    """Add the noise of "s" or "t" in place."""
    begin = phoneme.begin if phoneme.name == "s" else phoneme.end - BURST_SECONDS
    first, end = max(0, int(begin * rate)), min(len(wave), int(phoneme.end * rate))
    if end - first < 2:
        return
    low_hz, high_hz = NOISE_HZ[phoneme.name]
    noise = _band_noise(rng, end - first, rate, low_hz * voice.tract**0.5, min(high_hz, 0.49 * rate))
    fade = np.minimum(1.0, np.minimum(np.arange(len(noise)), np.arange(len(noise))[::-1]) / (0.006 * rate))
    wave[first:end] += LOUDNESS[phoneme.name] * fade * noise


def _band_noise(rng: np.random.Generator, samples: int, rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Noise of a band, of deviation 1: S."""
    length = 1 << (max(samples, 2) - 1).bit_length()  # other lengths make slow transforms
    spectrum = np.fft.rfft(rng.standard_normal(length))
    distance = (np.fft.rfftfreq(length, 1 / rate) - (low_hz + high_hz) / 2) / ((high_hz - low_hz) / 2)
    wave = np.fft.irfft(spectrum * np.exp(-(distance**4)), length)[:samples]
    return wave / (wave.std() + 1e-9)


def _through_channel(wave: np.ndarray, voice: Voice, rate: int) -> np.ndarray:
    """Through a room and a microphone: a slope of the spectrum, and a resonance."""
    length = 1 << (len(wave) - 1).bit_length()
    frequency_hz = np.fft.rfftfreq(length, 1 / rate) + 50
    gain = 1 + voice.peak * np.exp(-((np.log2(frequency_hz / voice.peak_hz) / 0.5) ** 2))
    gain *= (frequency_hz / 1000) ** voice.slope
    return np.fft.irfft(np.fft.rfft(wave, length) * gain, length)[: len(wave)]
