"""The synthetic sounds: file formats, and classes that only their change over time distinguishes."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import soundfile

from bridle_fairseq.demo import synthesize


def test_clips_are_deterministic_and_depend_on_the_seed() -> None:
    one, rate = synthesize.synthesize_clip("siren", 3, seed=1)
    again, again_rate = synthesize.synthesize_clip("siren", 3, seed=1)
    other, _ = synthesize.synthesize_clip("siren", 3, seed=2)
    assert rate == again_rate
    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or not np.array_equal(one, other)


@pytest.mark.parametrize("name", synthesize.CLASSES)
def test_clips_have_valid_samples_and_lengths(name: str) -> None:
    for index in range(4):
        wave, rate = synthesize.synthesize_clip(name, index, seed=0)
        assert wave.dtype == np.float32 and wave.shape[1] in (1, 2)
        assert synthesize.MIN_SECONDS - 0.001 <= len(wave) / rate <= synthesize.MAX_SECONDS
        assert np.isfinite(wave).all() and 0.01 < np.abs(wave).max() <= 1.0


def test_every_format_rate_and_channel_count_is_written_with_its_label(tmp_path) -> None:
    labels = synthesize.synthesize(tmp_path, clips_per_class=8, seed=0)
    with open(labels, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 12
    assert {row["label"] for row in rows} == set(synthesize.CLASSES)
    infos = [soundfile.info(str(tmp_path / row["file"])) for row in rows]
    assert {(info.format, info.subtype) for info in infos} >= {
        ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"),
    }  # fmt: skip
    assert {info.samplerate for info in infos} == set(synthesize.SAMPLE_RATES_HZ)
    assert {info.channels for info in infos} == {1, 2}


def spectrum(name: str, clips: int = 40) -> np.ndarray:
    """Mean power in eight octave bands, as shares, over clips of a class."""
    total = np.zeros(8)
    for index in range(clips):
        wave, rate = synthesize.synthesize_clip(name, index, seed=5)
        power = np.abs(np.fft.rfft(wave[:, 0])) ** 2
        band = np.clip(np.log2(np.fft.rfftfreq(len(wave), 1 / rate)[1:] / 60), 0, 7).astype(int)
        shares = np.bincount(band, power[1:], minlength=8)
        total += shares / shares.sum()
    return total / clips


@pytest.mark.parametrize(
    ("one", "other"),
    [("sweep_up", "sweep_down"), ("notes_up", "notes_down"), ("pluck", "swell"), ("pulses_hurrying", "pulses_slowing")],
)
def test_classes_of_a_pair_have_the_same_spectrum(one: str, other: str) -> None:
    assert np.abs(spectrum(one) - spectrum(other)).max() < 0.2
    assert np.abs(spectrum(one) - spectrum("tremolo_slow")).max() > 0.15 or "pulses" in one


def loudness_steps(name: str, index: int) -> np.ndarray:
    """Changes of the loudness (dB) from one hundredth of a second to the next, where there is sound."""
    wave, rate = synthesize.synthesize_clip(name, index, seed=3)
    hop = rate // 100
    power = (wave[: len(wave) // hop * hop, 0] ** 2).reshape(-1, hop).mean(axis=1)
    return np.diff(10 * np.log10(power + 1e-9))[2:-2]


def test_plucks_decay_and_swells_are_their_reversal() -> None:
    pluck = np.concatenate([loudness_steps("pluck", index) for index in range(20)])
    swell = np.concatenate([loudness_steps("swell", index) for index in range(20)])
    assert np.median(pluck) < -0.3 and np.median(swell) > 0.3


def test_pulses_speed_up_in_one_class_and_slow_down_in_the_other() -> None:
    def trend(name: str) -> float:
        """How often a gap between pulses is shorter than the one before it."""
        shorter = []
        for index in range(20):
            loud = loudness_steps(name, index).cumsum()
            onsets = np.flatnonzero(np.diff((loud > np.percentile(loud, 60)).astype(int)) == 1)
            shorter += (np.diff(onsets, 2) < 0).tolist()
        return float(np.mean(shorter))

    assert trend("pulses_hurrying") > 0.55 and trend("pulses_slowing") < 0.45


def test_pitch_rises_in_one_sweep_and_falls_in_the_other() -> None:
    time = np.arange(16000) / 16000
    cycle = synthesize._cycle_position(np.random.default_rng(0), time)
    up = synthesize.CLASSES["sweep_up"].keywords["shape"](cycle)
    down = synthesize.CLASSES["sweep_down"].keywords["shape"](cycle)
    assert np.median(np.diff(up)) > 0 > np.median(np.diff(down))
