"""Audio decoding: formats, bit depths, channels, crops, resampling, and bad files."""

import math

import numpy as np
import pytest
import soxr

from bridle_fairseq.data.audio.decode import DecodeError, open_audio, read_crop, read_info, resampled_length


@pytest.mark.parametrize(
    "name,subtype,tolerance",
    [
        ("a.wav", "PCM_U8", 1 / 127),
        ("a.wav", "PCM_16", 1 / 32767),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "DOUBLE", 0),
        ("a.flac", "PCM_24", 1e-6),
        ("a.aiff", "PCM_16", 1 / 32767),
    ],
)
def test_all_bit_depths_decode_to_the_same_scale(tmp_path, write_sound, name, subtype, tolerance):
    samples = np.clip(write_sound(name, subtype=subtype), -1, 1)
    read = read_crop(str(tmp_path / name), 16000)
    assert read.dtype == np.float32 and read.ndim == 1
    np.testing.assert_allclose(read, samples, atol=tolerance)


@pytest.mark.parametrize("name", ["a.ogg", "a.opus", "a.mp3"])
@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_lossy_formats(tmp_path, write_sound, name, rate):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    write_sound(name, rate=rate, samples=tone)
    assert read_info(str(tmp_path / name)) == (2 * rate, rate)
    read = read_crop(str(tmp_path / name), rate)
    assert len(read) == 2 * rate and np.corrcoef(read, tone)[0, 1] > 0.99


def test_channels_are_averaged(tmp_path, write_sound):
    samples = write_sound("a.wav", channels=3, subtype="FLOAT")
    np.testing.assert_allclose(read_crop(str(tmp_path / "a.wav"), 16000), samples.mean(1), atol=1e-7)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3"])
@pytest.mark.parametrize(
    "start,length", [(0, 1000), (5000, 1000), (31000, 99999), (31990, 10), (0, None), (20000, None)]
)
def test_crop_equals_slice_of_whole(tmp_path, write_sound, name, start, length):
    write_sound(name, 32000)
    path = str(tmp_path / name)
    whole = read_crop(path, 16000)
    expected = whole[start:] if length is None else whole[start : start + length]
    tolerance = 1e-2 if name == "a.opus" else 1e-6  # Opus decodes from a point before the crop and is not bit-exact
    np.testing.assert_allclose(read_crop(path, 16000, start, length), expected, atol=tolerance)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44056, 44100, 48000, 96000])
def test_resampled_crop_equals_slice_of_resampled_whole(tmp_path, write_sound, rate):
    samples = write_sound("a.wav", 3 * rate, rate, subtype="FLOAT")
    path = str(tmp_path / "a.wav")
    whole = read_crop(path, 16000)
    assert len(whole) == 48000
    np.testing.assert_allclose(whole, soxr.resample(samples, rate, 16000, quality="HQ"), atol=1e-6)
    for start, length in ((0, 5000), (1, 7777), (20011, 16000), (47000, 5000)):
        np.testing.assert_allclose(read_crop(path, 16000, start, length), whole[start : start + length], atol=2e-6)


def test_crop_reads_only_its_range(tmp_path, write_sound, monkeypatch):
    write_sound("a.wav", 441000, 44100)
    with open_audio(str(tmp_path / "a.wav")) as sound:
        asked = []
        read = sound.read
        monkeypatch.setattr(sound, "read", lambda count, **kw: asked.append(count) or read(count, **kw))
        from bridle_fairseq.data.audio.decode import read_open_crop

        assert len(read_open_crop(sound, 16000, 80000, 16000)) == 16000
    assert sum(asked) < 44100 * 1.3


@pytest.mark.parametrize("frames", [1, 7, 160, 441])
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_very_short_clips_have_rounded_length(tmp_path, write_sound, frames, rate):
    write_sound("a.wav", frames, rate)
    expected = max(1, math.floor(frames * 16000 / rate + 0.5))
    assert resampled_length(frames, rate, 16000) == expected
    assert len(read_crop(str(tmp_path / "a.wav"), 16000)) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused(tmp_path, write_sound, value):
    samples = np.zeros(4000)
    samples[1234] = value
    write_sound("a.wav", samples=samples, subtype="FLOAT")
    write_sound("b.wav", samples=samples, subtype="FLOAT", rate=8000)
    for name in ("a.wav", "b.wav"):
        with pytest.raises(DecodeError, match="NaN or infinite"):
            read_crop(str(tmp_path / name), 16000)


def test_unreadable_files(tmp_path, write_sound):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "junk.wav").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "folder.wav").mkdir()
    write_sound("none.wav", 0)
    for name, reason in {
        "missing.wav": "No such file",
        "empty.wav": "empty file",
        "junk.wav": "not readable as sound",
        "folder.wav": "not readable as sound",
        "none.wav": "no samples",
    }.items():
        with pytest.raises(DecodeError, match=reason):
            read_info(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_truncated_file(tmp_path, write_sound, name):
    write_sound(name, 64000)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    for start in (0, 60000):
        with pytest.raises(DecodeError):
            read_crop(str(tmp_path / name), 16000, start)
