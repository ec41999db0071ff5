"""The synthetic sounds: file formats, and words that only the order of their phonemes distinguishes."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import soundfile

from bridle_fairseq.demo import synthesize


def test_clips_are_deterministic_and_depend_on_the_seed() -> None:
    one, rate = synthesize.synthesize_clip("samitu", 3, seed=1)
    again, again_rate = synthesize.synthesize_clip("samitu", 3, seed=1)
    other, _ = synthesize.synthesize_clip("samitu", 3, seed=2)
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


def test_all_words_have_the_same_phonemes_in_another_order() -> None:
    assert len(set(synthesize.CLASSES)) == 12
    assert {"".join(sorted(word)) for word in synthesize.CLASSES} == {"aimstu"}
