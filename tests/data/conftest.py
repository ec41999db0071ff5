"""Sound files that the tests make themselves."""

import numpy as np
import pytest
import soundfile

from bridle_fairseq.data.manifest import Manifest


@pytest.fixture
def write_sound(tmp_path):
    """Write noise (or given samples) below tmp_path; returns the samples, float32, frames or frames x channels."""

    def write(name, frames=8000, rate=16000, channels=1, subtype=None, samples=None, seed=0):
        if samples is None:
            samples = 0.2 * np.random.default_rng(seed).standard_normal((frames, channels))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"opus": ("OGG", "OPUS"), "ogg": ("OGG", "VORBIS"), "mp3": ("MP3", "MPEG_LAYER_III")}.get(
            path.suffix[1:]
        )
        container, default = kind or (path.suffix[1:].upper(), "PCM_16")
        soundfile.write(path, samples, rate, format=container, subtype=subtype or default)
        return np.squeeze(np.asarray(samples, dtype=np.float32))

    return write


@pytest.fixture
def make_manifest(tmp_path, write_sound):
    """A manifest train.tsv of noise files 0.wav, 1.wav... with these numbers of frames, read back from its file."""

    def make(frames, rate=16000):
        for number, count in enumerate(frames):
            write_sound(f"{number}.wav", count, rate, seed=number, subtype="FLOAT")
        path = tmp_path / "train.tsv"
        Manifest(tmp_path, [f"{number}.wav" for number in range(len(frames))], frames).write(path)
        return Manifest.read(path)

    return make
