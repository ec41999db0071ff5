"""Frame selection gives the same frames as decoding the whole file, for all kinds of files."""

import os
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bridle_fairseq.data.video.container import VideoFile
from bridle_fairseq.data.video.frames import even_places, frames_at, read_clips, read_video_info

av = pytest.importorskip("av")
SHARED = Path(os.environ.get("BRIDLE_DATA", Path(__file__).parents[4] / "shared" / "data")) / "video"


def decode_all(path, short_side=None):
    """All frames of a file in decoding order: seconds after the first one (None without times), and rotated RGB."""
    with av.open(str(path)) as file:
        times, frames = [], []
        for frame in file.decode(video=0):
            size = {}
            if short_side:
                scale = short_side / min(frame.width, frame.height)
                size = {"width": round(frame.width * scale), "height": round(frame.height * scale)}
            rgb = frame.to_ndarray(format="rgb24", interpolation="BICUBIC" if size else None, **size)
            frames.append(np.rot90(rgb, frame.rotation // 90))
            times.append(None if frame.pts is None else frame.pts * frame.time_base)
    return [None if time is None else time - times[0] for time in times], np.stack(frames)


def shown(times, frames, rate, slots):
    """The frames that are shown in the middle of each slot, looked up one by one."""
    indices = [max(n for n, time in enumerate(times) if time <= (slot + Fraction(1, 2)) / rate) for slot in slots]
    return frames[indices]


CONSTANT = {
    "long_gop.mp4": {"frames": 200, "gop": 250},
    "b_frames.mp4": {"bf": "3", "b-pyramid": "normal"},
    "open_gop.mp4": {"bf": "3", "x264-params": "open-gop=1"},
    "no_key_frames.mp4": {"x264-params": "intra-refresh=1"},
    "fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "a.mov": {"rate": 30},
    "a.mkv": {"rate": 30, "bf": "2"},
    "a.webm": {"codec": "libvpx-vp9", "rate": 24, "deadline": "realtime", "cpu-used": "8"},
    "av1.mp4": {"codec": "libsvtav1", "preset": "12", "svtav1-params": "lp=1"},
    "a.ts": {"bf": "2"},
    "mpeg2.ts": {"codec": "mpeg2video"},
    "mpeg4.ts": {"codec": "mpeg4"},
    "a.avi": {"codec": "mpeg4"},
    "b_frames.avi": {"codec": "mpeg4", "bf": "2"},
    "h264.avi": {"bf": "3"},
    "raw.h264": {"bf": "3"},
    "every_frame_a_key.mkv": {"codec": "ffv1", "pix_fmt": "yuv444p"},
    "ten_bits.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "x265-params": "log-level=none:pools=1"},
    "odd.mp4": {"size": (53, 37), "pix_fmt": "yuv444p"},
    "a.gif": {"codec": "gif", "pix_fmt": "rgb8", "frames": 70},
}


@pytest.mark.parametrize("name", list(CONSTANT))
def test_clip_equals_every_fourth_frame(write_video, name):
    path = write_video(name, **CONSTANT[name])
    _, frames = decode_all(path)
    assert len(frames) == CONSTANT[name].get("frames", 90)
    with VideoFile(path) as file:
        assert file.num_slots == len(frames)
    room = len(frames) - 61
    clips = read_clips(path, [0, 0.5, 1, 0.2, 0.5])
    for clip, start in zip(clips, [0, (room + 1) // 2, room, int(0.2 * (room + 1)), (room + 1) // 2], strict=True):
        np.testing.assert_array_equal(clip, frames[start + 4 * np.arange(16)])
    np.testing.assert_array_equal(read_clips(path, [1], 5, 1), clips_of(frames, len(frames) - 5, 5, 1))


def clips_of(frames, start, num_frames, stride):
    return frames[None, start + stride * np.arange(num_frames)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_variable_frame_rate(write_video, name):
    gaps = np.random.default_rng(0).integers(8, 120, 119)
    gaps[50:60] = 400
    times = np.cumsum([0, *gaps]).tolist()
    codec = "libvpx-vp9" if name == "a.webm" else "libx264"
    path = write_video(name, 120, codec=codec, times=times)
    seconds, frames = decode_all(path)
    with VideoFile(path) as file:
        rate, slots = file.rate, file.num_slots
    assert abs(slots / rate - (times[-1] + 40) / 1000) < 0.1
    for place in (0, 0.31, 0.77, 1):
        start = int(place * (slots - 61 + 1)) if place < 1 else slots - 61
        clip = read_clips(path, [place])[0]
        np.testing.assert_array_equal(clip, shown(seconds, frames, rate, start + 4 * np.arange(16)))


def test_rotation_matrix_of_the_test_file(write_video):
    data = Path(write_video("a.mp4", 1, rotation=-90)).read_bytes()
    header = data.index(b"tkhd") + 4
    one = 1 << 16  # 16.16 fixed point: x' = -y, y' = x, with y downwards
    assert struct.unpack(">9i", data[header + 40 : header + 76])[:5] == (0, one, 0, -one, 0)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation(write_video, rotation):
    path = write_video("a.mp4", rotation=rotation)
    info = read_video_info(path)
    assert info.rotation == rotation % 360
    assert (info.height, info.width) == ((48, 64) if rotation == 180 else (64, 48))
    with av.open(path) as file:
        stored = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    expected = np.rot90(stored[:61:4], rotation // 90, axes=(1, 2))  # counterclockwise
    np.testing.assert_array_equal(read_clips(path, [0])[0], expected)
    assert read_clips(path, [0], short_side=24).shape == (1, 16, *((24, 32) if rotation == 180 else (32, 24)), 3)


def test_10_bit_colour(write_video):
    path = write_video("a.mp4", codec="libx265", pix_fmt="yuv420p10le", **{"x265-params": "log-level=none:lossless=1"})
    grey = read_clips(path, [0], 1)[0, 0, 10:].astype(int).mean((0, 1))
    eight = read_clips(write_video("b.mp4", qp="0"), [0], 1)[0, 0, 10:].astype(int).mean((0, 1))
    assert np.abs(grey - eight).max() < 3


def test_short_file_holds_its_last_frame(write_video):
    path = write_video("a.mp4", 9)
    _, frames = decode_all(path)
    for clip in read_clips(path, [0, 0.4, 1]):
        np.testing.assert_array_equal(clip, frames[[0, 4, *[8] * 14]])
    one = write_video("b.mp4", 1)
    assert (read_clips(one, [0.5]) == decode_all(one)[1][0]).all()


@pytest.mark.parametrize("size", [(640, 360), (53, 37), (48, 64)])
def test_short_side_scaling(write_video, size):
    path = write_video("a.mp4", 12, size, pix_fmt="yuv444p")
    _, frames = decode_all(path, short_side=32)
    shapes = []
    clip = read_clips(path, [0], 3, 4, 32, allocate=lambda shape: shapes.append(shape) or np.empty(shape, np.uint8))[0]
    assert min(clip.shape[1:3]) == 32 and shapes == [(1, 3, *frames.shape[1:])]
    np.testing.assert_array_equal(clip, frames[[0, 4, 8]])


def test_places_cover_the_file(write_video):
    assert even_places(1) == [0.5] and even_places(3) == [0, 0.5, 1]
    path = write_video("a.mp4", 20)
    _, frames = decode_all(path)
    starts = [0, 5, 10]
    for clip, start in zip(read_clips(path, even_places(3), 4, 3), starts, strict=True):
        np.testing.assert_array_equal(clip, frames[start + 3 * np.arange(4)])
    seen = {
        int(np.flatnonzero((frames == read_clips(path, [u], 1)[0, 0]).all((1, 2, 3)))[0]) for u in np.linspace(0, 1)
    }
    assert seen == set(range(20))


def count_decoded(monkeypatch):
    """A list that gets the time of each frame that is decoded from now on."""
    decoded, decode = [], VideoFile.decoded

    def counted(self, *arguments, **named):
        for frame in decode(self, *arguments, **named):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(VideoFile, "decoded", counted)
    return decoded


def test_seeks_instead_of_decoding_from_start(write_video, monkeypatch):
    path = write_video("a.mp4", 400, gop=20)
    decoded = count_decoded(monkeypatch)
    read_clips(path, [1], 4)
    assert len(decoded) <= 13 + 20 + 1
    decoded.clear()
    clips = read_clips(path, [0, 0.5, 1, 0.51], 4)
    assert len(decoded) < 3 * (13 + 20 + 1)  # overlapping clips are decoded once, gaps not at all
    np.testing.assert_array_equal(clips, np.concatenate([read_clips(path, [u], 4) for u in (0, 0.5, 1, 0.51)]))


def test_unneeded_frames_are_not_decoded(write_video, monkeypatch):
    path = write_video("a.mp4", 120, gop=250, bf="3")
    expected = decode_all(path)[1][59 + 4 * np.arange(16)]
    decoded = count_decoded(monkeypatch)
    np.testing.assert_array_equal(read_clips(path, [1])[0], expected)
    assert len(decoded) < 90  # of 120


def test_seek_that_lands_too_late(write_video, monkeypatch):
    path = write_video("a.mp4", 300, gop=10)
    expected = read_clips(path, [0.7], 4)
    decoded, seek = count_decoded(monkeypatch), VideoFile.seek
    monkeypatch.setattr(VideoFile, "seek", lambda self, time: seek(self, time + int(1 / self.base)))
    np.testing.assert_array_equal(read_clips(path, [0.7], 4), expected)
    assert len(decoded) < 100
    monkeypatch.setattr(VideoFile, "seek", lambda self, time: False)
    np.testing.assert_array_equal(read_clips(path, [0.7], 4), expected)


def test_decoder_threads_do_not_change_frames(write_video):
    path = write_video("a.mp4", bf="3")
    np.testing.assert_array_equal(read_clips(path, [0.4, 1], threads=3), read_clips(path, [0.4, 1]))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no $BRIDLE_DATA/video, no ../shared/data/video")
@pytest.mark.parametrize(
    "path", sorted(p for p in SHARED.glob("*") if p.suffix in (".mkv", ".mp4", ".webm")), ids=lambda p: p.name
)
def test_real_files_match_reference_decoding(path):
    seconds, frames = decode_all(path, short_side=96)
    info = read_video_info(str(path))
    assert info.num_frames == len(frames) and abs(info.seconds - len(frames) / info.rate) < 1e-6
    with VideoFile(str(path)) as file:
        last = file.num_slots - 1
        slots = np.stack([np.minimum(start + 4 * np.arange(16), last) for start in (0, last // 3, last - 20)]).clip(0)
        clips = frames_at(file, slots, short_side=96)
        for clip, row in zip(clips, slots, strict=True):
            np.testing.assert_array_equal(clip, shown(seconds, frames, file.rate, row))
    assert read_clips(str(path), [0], 1).shape[2:] == (info.height, info.width, 3)
