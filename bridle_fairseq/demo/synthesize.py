"""A labelled set of synthetic sounds: a dozen spoken words in many file formats, to try things out without data.

All words have the same six phonemes, and differ only in their order. In each clip another voice repeats a word, from a
random moment of it. So the mean spectrum of a clip tells the words no better than chance, and the spectra of its
quarters hardly better, while what follows what is there to be learned, as it is in speech.
"""

from __future__ import annotations

from functools import partial
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from bridle_fairseq.demo.data import write_classes
from bridle_fairseq.demo.voice import say

MIN_SECONDS, MAX_SECONDS = 0.9, 2.2
SAMPLE_RATES_HZ = (8000, 16000, 22050, 32000, 44100, 48000)


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


# the same six phonemes in each: only their order tells the words apart
SYLLABLES = (("sa", "mi", "tu"), ("si", "mu", "ta"))
CLASSES = tuple("".join(order) for syllables in SYLLABLES for order in permutations(syllables))


def synthesize_clip(class_name: str, index: int, seed: int) -> tuple[np.ndarray, int]:
    """One clip: S x channels float32 in [-1, 1] and its sample rate; the same arguments give the same clip."""
    rng = np.random.default_rng((seed, CLASSES.index(class_name), index))
    rate = int(rng.choice(SAMPLE_RATES_HZ))
    seconds = MIN_SECONDS * (MAX_SECONDS / MIN_SECONDS) ** (rng.random() ** 1.5)  # more short clips than long ones
    wave = say(rng, class_name, seconds, rate)
    wave = wave / (np.abs(wave).max() + 1e-9)
    wave = wave + 10 ** (-rng.uniform(25, 45) / 20) * rng.standard_normal(len(wave))
    time = np.arange(len(wave)) / rate
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
        kind = FILE_FORMATS[(index + CLASSES.index(class_name)) % len(FILE_FORMATS)]
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
    return write_classes(write, CLASSES, folder)
