"""A labelled set of synthetic sounds: a dozen classes in many file formats, to try things out without data.

The classes come in groups with the same notes, timbres and loudness. They differ only in *how the sound changes over
time*: a rising or a falling sweep, a pluck or its time reversal, pulses that speed up or slow down. Each sound repeats
from a random phase, so neither the mean spectrum nor the coarse envelope of a clip distinguishes classes of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from bridle_fairseq.demo.data import write_classes

MIN_SECONDS, MAX_SECONDS = 0.5, 3.0
SAMPLE_RATES_HZ = (8000, 16000, 22050, 32000, 44100, 48000)
HIGHEST_PITCH_HZ = 700.0
CYCLE_SECONDS = (0.3, 0.45)  # of one sweep, one run of notes, one group of pulses


class FileFormat(NamedTuple):
    """A container and encoding of libsndfile."""

    extension: str
    container: str
    subtype: str


FILE_FORMATS = (
    FileFormat("wav", "WAV", "PCM_16"),
    FileFormat("wav", "WAV", "PCM_24"),
    FileFormat("wav", "WAV", "FLOAT"),
    FileFormat("flac", "FLAC", "PCM_16"),
    FileFormat("ogg", "OGG", "VORBIS"),
    FileFormat("mp3", "MP3", "MPEG_LAYER_III"),
)


def _harmonics(rng: np.random.Generator, frequency_hz: np.ndarray, rate: int) -> np.ndarray:
    """A tone of random timbre (S samples) that follows an instantaneous frequency (S)."""
    # wrapped before the cast to float32, whose sine is several times as fast
    phase = (2 * np.pi * (np.cumsum(frequency_hz) / rate % 1.0)).astype(np.float32)
    tilt, odd_only = rng.uniform(0.6, 1.6), rng.random() < 0.3
    wave = np.zeros_like(phase)
    for number in range(1, 9, 2 if odd_only else 1):
        audible = number * frequency_hz < 0.45 * rate
        wave += audible * np.float32(number**-tilt) * np.sin(number * phase + np.float32(rng.uniform(0, 2 * np.pi)))
    return wave


def _noise(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Noise (S samples) in a random band of one to two octaves."""
    length = 1 << (samples - 1).bit_length()  # other lengths make slow transforms
    spectrum = np.fft.rfft(rng.standard_normal(length))
    centre_hz, octaves = np.exp(rng.uniform(np.log(500), np.log(2200))), rng.uniform(0.5, 1.0)
    distance = np.abs(np.log2(np.fft.rfftfreq(length, 1 / rate)[1:] / centre_hz)) / octaves
    spectrum[1:] *= np.exp(-(distance**4))
    spectrum[0] = 0
    wave = np.fft.irfft(spectrum, length)[:samples]
    return wave / (wave.std() + 1e-9)


def _cycle_position(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """The position, 0 to 1, in a cycle of random length and phase."""
    return (time / rng.uniform(*CYCLE_SECONDS) + rng.random()) % 1.0


def _sweep(
    rng: np.random.Generator, time: np.ndarray, rate: int, shape: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """A tone that sweeps about an octave per cycle; ``shape`` maps the position in the cycle to pitch, 0 to 1."""
    octaves = rng.uniform(0.8, 1.3)
    lowest_hz = rng.uniform(150, HIGHEST_PITCH_HZ / 2**octaves)
    return _harmonics(rng, lowest_hz * 2 ** (octaves * shape(_cycle_position(rng, time))), rate)


def _run_of_notes(rng: np.random.Generator, time: np.ndarray, rate: int, order: tuple[int, ...]) -> np.ndarray:
    """Four notes of a chord, repeated in the given order, each with a soft attack."""
    chord = np.array([0, 4, 7, 12]) / 12
    lowest_hz = rng.uniform(150, HIGHEST_PITCH_HZ / 2)
    place = _cycle_position(rng, time * 0.75) * len(order)
    note = np.minimum(place.astype(int), len(order) - 1)
    envelope = np.minimum(1.0, 8 * (place - note)) * np.minimum(1.0, 8 * (1 - (place - note)))
    return envelope * _harmonics(rng, lowest_hz * 2 ** chord[np.array(order)[note]], rate)


def _swells(rng: np.random.Generator, time: np.ndarray, rate: int, reverse: bool) -> np.ndarray:
    """Notes with a sharp attack that decay, or their time reversal."""
    place = _cycle_position(rng, time)
    envelope = np.minimum(1.0, place * 60) * np.exp(-rng.uniform(4, 7) * place)
    wave = envelope * _harmonics(rng, np.full_like(time, rng.uniform(150, HIGHEST_PITCH_HZ)), rate)
    return wave[::-1] if reverse else wave


def _pulses(rng: np.random.Generator, time: np.ndarray, rate: int, reverse: bool) -> np.ndarray:
    """Groups of six noise pulses with shrinking gaps, or their time reversal."""
    gaps = 0.72 ** np.arange(6)
    starts = np.concatenate([[0], np.cumsum(gaps)[:-1]]) / gaps.sum()
    cycle = rng.uniform(0.6, 0.9)
    place = (time / cycle + rng.random()) % 1.0
    since_pulse = place - starts[np.searchsorted(starts, place, side="right") - 1]
    # a pulse is symmetric in time, so that time reversal only changes the order of the gaps
    width = 0.02 / cycle
    envelope = np.exp(-(((since_pulse - 2 * width) / width) ** 2))
    wave = envelope * _noise(rng, len(time), rate)
    return wave[::-1] if reverse else wave


def _tremolo(rng: np.random.Generator, time: np.ndarray, rate: int, slowest_hz: float, fastest_hz: float) -> np.ndarray:
    """Noise with periodic loudness."""
    angle = 2 * np.pi * (rng.uniform(slowest_hz, fastest_hz) * time + rng.random())
    return (0.53 + 0.47 * np.sin(angle)) * _noise(rng, len(time), rate)


Synthesizer = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]
CLASSES: dict[str, Synthesizer] = {
    "sweep_up": partial(_sweep, shape=lambda place: place),
    "sweep_down": partial(_sweep, shape=lambda place: 1 - place),
    "siren": partial(_sweep, shape=lambda place: 1 - np.abs(2 * place - 1)),
    "notes_up": partial(_run_of_notes, order=(0, 1, 2, 3)),
    "notes_down": partial(_run_of_notes, order=(3, 2, 1, 0)),
    "notes_leaping": partial(_run_of_notes, order=(0, 2, 1, 3)),
    "pluck": partial(_swells, reverse=False),
    "swell": partial(_swells, reverse=True),
    "pulses_hurrying": partial(_pulses, reverse=False),
    "pulses_slowing": partial(_pulses, reverse=True),
    "tremolo_slow": partial(_tremolo, slowest_hz=3.0, fastest_hz=5.0),
    "tremolo_fast": partial(_tremolo, slowest_hz=7.0, fastest_hz=11.0),
}


def synthesize_clip(class_name: str, index: int, seed: int) -> tuple[np.ndarray, int]:
    """One clip: S x channels float32 in [-1, 1] and its sample rate; the same arguments give the same clip."""
    rng = np.random.default_rng((seed, list(CLASSES).index(class_name), index))
    rate = int(rng.choice(SAMPLE_RATES_HZ))
    seconds = MIN_SECONDS * (MAX_SECONDS / MIN_SECONDS) ** (rng.random() ** 1.5)  # more short clips than long ones
    time = np.arange(int(seconds * rate)) / rate
    wave = CLASSES[class_name](rng, time, rate)
    wave = wave / (np.abs(wave).max() + 1e-9)
    wave = wave + 10 ** (-rng.uniform(25, 45) / 20) * _noise(rng, len(time), rate)
    edge = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.005)  # fades against clicks at both ends
    wave = edge * wave / np.abs(wave).max() * 10 ** (-rng.uniform(2, 20) / 20)
    if rng.random() < 0.4:
        left = rng.uniform(0.3, 1.0)
        return np.stack([left * wave, (1.3 - left) * wave], axis=1).astype(np.float32), rate
    return wave[:, None].astype(np.float32), rate


def _write_class(class_name: str, folder: Path, clips: int, seed: int) -> list[str]:
    """Write the clips of a class; their paths relative to the folder."""
    (folder / class_name).mkdir(parents=True, exist_ok=True)
    names = []
    for index in range(clips):
        wave, rate = synthesize_clip(class_name, index, seed)
        kind = FILE_FORMATS[(index + list(CLASSES).index(class_name)) % len(FILE_FORMATS)]
        name = f"{class_name}/{index:04d}.{kind.extension}"
        soundfile.write(folder / name, wave, rate, format=kind.container, subtype=kind.subtype)
        names.append(name)
    return names


def synthesize(folder: Path, clips_per_class: int, seed: int = 0) -> Path:
    """Write the set below ``folder``, one folder per class, and ``labels.csv`` with the columns file and label.

    Returns:
        The path of ``labels.csv``.
    """
    write = partial(_write_class, clips=clips_per_class, seed=seed)
    return write_classes(write, list(CLASSES), folder)
