"""Audio decoding: formats, bit depths, channels, crops, resampling, and bad files."""

import math
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
import torch

from bridle_fairseq.data.audio import decode
from bridle_fairseq.data.audio.decode import (
    DecodeError,
    open_audio,
    read_crop,
    read_info,
    read_open_crop,
    resampled_length,
)
from bridle_fairseq.data.audio.samples import MAX_SAMPLE
from bridle_fairseq.nn.fbank import LogMel


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
        with pytest.raises(DecodeError, match="sample 1234 is -?(nan|inf)"):
            read_crop(str(tmp_path / name), 16000)


def test_unreadable_files(tmp_path, write_sound):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "junk.wav").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "junk.mp3").write_bytes(np.random.default_rng(3).bytes(50000))
    (tmp_path / "folder.wav").mkdir()
    write_sound("none.wav", 0)
    for name, reason in {
        "missing.wav": "No such file",
        "empty.wav": "empty file",
        "junk.wav": "not readable as sound",
        "junk.mp3": "not readable as sound: no known format",  # not: File does not exist
        "folder.wav": "a folder",
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


def test_pipe_and_folder_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zeros.wav").symlink_to("/dev/zero")
    for name in ("pipe.wav", "zeros.wav"):
        with pytest.raises(DecodeError, match="^not a regular file$"):
            read_info(str(tmp_path / name))


@pytest.mark.parametrize(("value", "usable"), [(-32768, True), (2.0**31, True), (-1e10, False), (1e38, False)])
def test_absurdly_large_samples_are_refused(tmp_path, write_sound, value, usable):
    samples = np.zeros((4000, 2))
    samples[1234] = value, -value  # their mean is 0
    write_sound("a.wav", samples=samples, subtype="FLOAT")
    path = str(tmp_path / "a.wav")
    if usable:
        assert not read_crop(path, 16000).any()
    else:
        with pytest.raises(DecodeError, match=r"^sample 1234 is -?1e\+(10|38); expected values from -1 to 1"):
            read_crop(path, 16000, 1000, 500)
        assert len(read_crop(path, 16000, 0, 1000)) == 1000


@pytest.mark.parametrize("rate", [8000, 16000, 192000])
def test_log_mel_of_the_largest_samples_is_finite(rate):
    time = torch.arange(rate // 10) / rate
    for frequency in (50, 0.2 * rate):
        wave = (torch.sin(2 * math.pi * frequency * time).sign() * 1.5 * MAX_SAMPLE)[None]  # 1.5: the largest gain
        log_mel, _ = LogMel(rate)(wave)
        assert log_mel.isfinite().all() and log_mel.max() < 88


def with_length(flac, length):
    """A copy of a FLAC file with another number of samples in its header; 0: not stated."""
    data = bytearray(flac.read_bytes())
    fields = int.from_bytes(data[18:26], "big")
    data[18:26] = (fields >> 36 << 36 | length).to_bytes(8, "big")
    copy = flac.with_name(f"{length}.flac")
    copy.write_bytes(data)
    return str(copy)


@pytest.mark.parametrize("claimed", [0, 2**36 - 1])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_length_that_the_header_does_not_state(tmp_path, write_sound, claimed, rate):
    write_sound("a.flac", 3 * rate, rate)
    known, path = str(tmp_path / "a.flac"), with_length(tmp_path / "a.flac", claimed)
    assert read_info(path) == read_info(known) == (3 * rate, rate)
    for crop in ((0, None), (0, 5000), (20000, 5000), (40000, 99999), (47000, None)):
        np.testing.assert_array_equal(read_crop(path, 16000, *crop), read_crop(known, 16000, *crop))
    with open_audio(path, 3 * rate) as sound:
        assert sound.num_frames == 3 * rate and len(read_open_crop(sound, 16000, 40000)) == 8000
    with pytest.raises(DecodeError, match="^the manifest says 9223372036854775807 samples; expected at most"):
        read_info(path, 2**63 - 1)
    with open_audio(path, 4 * rate) as sound, pytest.raises(DecodeError, match=f"^ends before its {4 * rate} samples"):
        read_open_crop(sound, 16000, 40000, 20000)


def test_frames_are_counted_up_to_a_limit(tmp_path, write_sound, monkeypatch):
    write_sound("a.flac", 3000, 16000)
    path = with_length(tmp_path / "a.flac", 0)
    monkeypatch.setattr(decode, "MAX_COUNTED", 3000)
    assert read_info(path).num_frames == len(read_crop(path, 16000)) == 3000
    monkeypatch.setattr(decode, "MAX_COUNTED", 2999)
    for read in (read_info, lambda path: read_crop(path, 16000)):
        with pytest.raises(DecodeError, match="^states no length and has more than 2999 frames$"):
            read(path)
    assert len(read_crop(path, 16000, 0, 1000)) == 1000


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_without_frame_count(tmp_path, mode):
    noise = np.random.default_rng(0).standard_normal(60000) * np.repeat([0.001, 0.3], 30000)
    soundfile.write(tmp_path / "a.mp3", noise, 16000, bitrate_mode=mode, compression_level=0.5)
    data = (tmp_path / "a.mp3").read_bytes()
    count, second = data.index(b"Xing" if mode == "VARIABLE" else b"Info"), data.index(b"\xff\xf3", 4)
    assert count < second
    tag = b"ID3\x03\0\0\0\0\x40\0" + bytes(8192)
    (tmp_path / "b.mp3").write_bytes(tag + data[second:] + b"TAG".ljust(128, b"\0"))
    path = str(tmp_path / "b.mp3")
    whole = read_crop(path, 16000)
    assert read_info(path).num_frames == len(whole) == 107 * 576
    expected = read_crop(str(tmp_path / "a.mp3"), 16000)
    assert np.corrcoef(whole[1105:61105], expected)[0, 1] > 0.99  # of the encoder and the decoder
    np.testing.assert_allclose(read_crop(path, 16000, 50000, 4000), whole[50000:54000], atol=1e-6)


def test_blocks_are_read_as_one(tmp_path, write_sound, monkeypatch):
    write_sound("a.wav", 5000, channels=3)
    write_sound("b.ogg", 50000, 44100)
    paths = [str(tmp_path / name) for name in ("a.wav", "b.ogg")]
    expected = [read_crop(path, 16000, 100, 4000) for path in paths]
    monkeypatch.setattr(decode, "VALUES_AT_ONCE", 1000)
    for path, crop in zip(paths, expected, strict=True):
        np.testing.assert_array_equal(read_crop(path, 16000, 100, 4000), crop)


READ_AND_PRINT_PEAKS = """
import re, sys
from bridle_fairseq.data.audio.decode import read_crop
def peak():  # ru_maxrss would include the parent's
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
before = peak()
for path in sys.argv[1:]:
    assert len(read_crop(path, 16000, 8000, 80000)) == 80000
    print((peak() - before) >> 10)
"""


def test_memory_for_a_crop(tmp_path):
    """Of ten hours, and of 32 channels at 768 kHz; the files have holes in place of samples."""
    paths = []
    for channels, rate, seconds in ((1, 16000, 36000), (32, 768000, 6)):
        paths.append(str(tmp_path / f"{channels}.wav"))
        soundfile.write(paths[-1], np.zeros((1, channels)), rate, format="RF64")
        with open(paths[-1], "rb+") as file:
            data, size = bytearray(file.read()), 2 * channels * rate * seconds
            at = data.index(b"ds64") + 8
            data[at : at + 24] = struct.pack("<QQQ", len(data) + size, size, rate * seconds)
            file.seek(0)
            file.write(data)
            file.truncate(len(data) + size)
    command = [sys.executable, "-c", READ_AND_PRINT_PEAKS, *paths]
    of_hours, of_channels = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(of_hours) < 20 and int(of_channels) < 80  # MB; all channels of the crop are 500


def test_absurd_rate(tmp_path, write_sound):
    write_sound("a.wav", 100, 2**31 - 1)
    with pytest.raises(DecodeError, match="^sample rate 2147483647 Hz; expected at most 2097152$"):
        read_info(str(tmp_path / "a.wav"))
