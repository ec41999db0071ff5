"""Sound that libsndfile does not read, by PyAV in another process."""

import numpy as np
import pytest

from bridle_fairseq.data.audio import container
from bridle_fairseq.data.audio.container import SoundCache
from bridle_fairseq.data.audio.dataset import AudioDataset, AudioReader
from bridle_fairseq.data.audio.decode import read_crop, read_info
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.video import reader
from bridle_fairseq.utils.errors import DecodeError, InputError

av = pytest.importorskip("av")
RATE = 44100


def write(path, codec="aac", kind="ipod", seconds=2.0, layout="stereo"):
    """A tone, 440 Hz left and 660 Hz right; returns the mean of the channels."""
    time = np.arange(int(seconds * RATE)) / RATE
    channels = np.stack([np.sin(2 * np.pi * tone * time) for tone in (440, 660)]).astype(np.float32) / 2
    with av.open(str(path), "w", format=kind) as file:
        stream = file.add_stream(codec, rate=RATE)
        stream.layout, stream.bit_rate = layout, 256000
        frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        for part in av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=RATE).resample(frame):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return channels.mean(0)


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [("a.m4a", "aac", "ipod"), ("b.m4a", "alac", "ipod"), ("c.mka", "aac", "matroska"), ("d.wv", "wavpack", "wv")],
)
def test_formats_are_read_as_their_samples(tmp_path, name, codec, kind):
    sound = write(tmp_path / name, codec, kind)
    path = str(tmp_path / name)
    info, read = read_info(path), read_crop(path, RATE)
    assert info.sample_rate == RATE and info.num_frames == len(read) and 0 <= len(read) - len(sound) < 1024
    np.testing.assert_allclose(
        read[2000 : len(sound) - 2000], sound[2000:-2000], atol=1e-3 if codec == "alac" else 0.03
    )
    np.testing.assert_array_equal(read_crop(path, RATE, 30000, 5000), read[30000:35000])
    np.testing.assert_allclose(read_crop(path, 16000, 8000, 4000), read_crop(path, 16000)[8000:12000], atol=1e-6)


def test_slice_of_an_archive(tmp_path):
    write(tmp_path / "a.m4a")
    content = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "x.tar").write_bytes(bytes(512) + content + bytes(512))
    read = read_crop(f"{tmp_path}/x.tar:512:{len(content)}", RATE)
    np.testing.assert_array_equal(read, read_crop(str(tmp_path / "a.m4a"), RATE))


def test_seeking_gives_the_same_samples(tmp_path, monkeypatch):
    write(tmp_path / "a.m4a", seconds=8)
    path = str(tmp_path / "a.m4a")
    whole = SoundCache().read(path, 0, 10 * RATE)
    monkeypatch.setattr(container, "FAR_SECONDS", 3)
    with container.SoundStream(path) as stream:
        read = stream.read(5 * RATE + 7, 1000)
        assert stream.position == 5 * RATE + 1007
    np.testing.assert_allclose(read, whole[5 * RATE + 7 :][:1000], atol=1e-6)
    cache = SoundCache()  # long files are read in blocks
    blocks = [cache.read(path, start, 50000) for start in range(0, len(whole), 50000)]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_length_is_an_estimate_and_truncation_is_noticed(tmp_path):
    write(tmp_path / "a.m4a")
    path, size = str(tmp_path / "a.m4a"), read_info(str(tmp_path / "a.m4a")).num_frames
    for listed in (size, size + 1024, size - 1024):
        manifest = Manifest(tmp_path, ["a.m4a"], [listed])
        assert AudioDataset(manifest, sample_rate=RATE)[0]["source"].shape == (min(size, listed),)
        assert AudioReader(RATE).length(path, listed) == min(size, listed)
    with pytest.raises(DecodeError, match=f"ends after {size} of its {2 * size} samples"):
        AudioReader(RATE).length(path, 2 * size)


@pytest.mark.parametrize(
    "content", [b"\0\0\0\x1cftypM4A " + bytes(400), b"#!AMR\n", b"caff" + bytes(50), b"OggS" + bytes(99)]
)
def test_damaged_files_are_bad_files(tmp_path, content):
    (tmp_path / "a.m4a").write_bytes(content)
    with pytest.raises(DecodeError, match="not readable as sound|no sound|channels|no samples|corrupt"):
        read_info(str(tmp_path / "a.m4a"))


def test_text_is_not_given_to_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "VideoReader", None)
    (tmp_path / "a.m4a").write_text("#EXTM3U\nhttp://example.org/a.mp3\n")
    with pytest.raises(DecodeError, match="not readable as sound"):
        read_info(str(tmp_path / "a.m4a"))


def test_without_pyav_the_file_is_bad_and_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "a.m4a")

    def missing():
        raise InputError("video needs PyAV")

    monkeypatch.setattr(reader, "load_av", missing)
    monkeypatch.setattr(reader, "_idle", [])
    with pytest.raises(DecodeError, match=r"needs PyAV; install it: pip install 'bridle_fairseq\[video\]'"):
        read_info(str(tmp_path / "a.m4a"))
