"""Headers of video files, and bad files."""

import os
import socket
import sys
import zipfile

import numpy as np
import pytest
import soundfile

from bridle_fairseq.data.manifests.archive import Slice, members
from bridle_fairseq.data.video import container as video_file
from bridle_fairseq.data.video.container import VideoFile
from bridle_fairseq.data.video.frames import read_clips, read_video_info
from bridle_fairseq.utils.errors import DecodeError, InputError

av = pytest.importorskip("av")


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("a.mp4", {"frames": 60, "rate": 30}, (60, "container", 30.0, 2.0, 48, 64, 0)),
        ("a.mkv", {"frames": 60, "rate": 30}, (60, "packets", 30.0, 2.0, 48, 64, 0)),
        ("a.webm", {"frames": 50, "codec": "libvpx-vp9"}, (50, "packets", 25.0, 2.0, 48, 64, 0)),
        ("a.ts", {"frames": 50}, (50, "packets", 25.0, 2.0, 48, 64, 0)),
        ("a.h264", {"frames": 50}, (50, "packets", 25.0, 2.0, 48, 64, 0)),
        ("a.mov", {"frames": 5, "size": (66, 34), "rotation": 90}, (5, "container", 25.0, 0.2, 66, 34, 90)),
    ],
)
def test_video_info(write_video, name, settings, expected):
    assert read_video_info(write_video(name, **settings)) == pytest.approx(expected)


def test_clock_rate_is_not_a_frame_rate(write_video, monkeypatch):
    path = write_video("a.mkv", 50)
    monkeypatch.setattr(video_file, "MAX_RATE", 20)  # treats 25 like the clock rate of 1000 that some cameras write
    monkeypatch.setattr(VideoFile, "_stated_ticks", lambda self: None)
    assert read_video_info(path) == pytest.approx((50, "packets", 25.0, 2.0, 48, 64, 0))


def test_archive_slice(write_video, tmp_path):
    path = write_video("a.mp4")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(path, "clips/a.mp4")
    ((_, offset, length),) = members(tmp_path / "x.zip")
    sliced = f"{tmp_path / 'x.zip'}:{offset}:{length}"
    assert read_video_info(sliced) == read_video_info(path)
    np.testing.assert_array_equal(read_clips(sliced, [1], 4), read_clips(path, [1], 4))


def test_names_that_look_like_protocols(write_video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "http:").mkdir()
    for name in ("concat:a.mp4", "http:/%d é.mp4"):
        write_video(name, 3)
        assert read_video_info(name).num_frames == 3


def unreadable(tmp_path, write_video):
    """Write bad files; name of each one -> error."""
    soundfile.write(tmp_path / "sound.wav", np.zeros(8000), 16000)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "junk.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "page.mp4").write_text("<html><body>404 Not Found</body></html>\n" * 30)
    (tmp_path / "folder.mp4").mkdir()
    with av.open(str(tmp_path / "header.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.start_encoding()
    path = write_video("no_frames.mp4", container={"movflags": "faststart"})
    data = (tmp_path / "no_frames.mp4").read_bytes()
    (tmp_path / "no_frames.mp4").write_bytes(data[: data.index(b"mdat") + 4])
    return {
        "missing.mp4": "^No such file or directory$",
        "empty.mp4": "^empty file$",
        "junk.mp4": "^not readable as video: invalid data",
        "page.mp4": "^not readable as video: invalid data",
        "folder.mp4": "^a folder$",
        "sound.wav": "^not a video container that is read here$",
        "header.mp4": "^no video stream$",
        "no_frames.mp4": "^no frames$",
        path + "/x.mp4": "irectory$",
        f"{path}:0:99.zip": "o such file",
    }


def test_bad_files(tmp_path, write_video):
    for name, reason in unreadable(tmp_path, write_video).items():
        for read in (read_video_info, lambda path: read_clips(path, [0.5])):
            with pytest.raises(DecodeError, match=reason):
                read(str(tmp_path / name))


def test_a_bad_slice_is_closed(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(video_file, "Slice", lambda *slice_: opened.append(Slice(*slice_)) or opened[0])
    (tmp_path / "x.zip").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(DecodeError, match="^not readable as video: invalid data"):
        VideoFile(f"{tmp_path / 'x.zip'}:100:4000")
    assert opened[0].closed


def test_cover_picture_is_not_video(tmp_path):
    path = str(tmp_path / "song.mp4")
    with av.open(path, "w") as file:
        sound, cover = file.add_stream("aac", rate=16000), file.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        file.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        file.mux(sound.encode(samples))
        file.mux(sound.encode())
    with av.open(path) as file:
        assert len(file.streams.video) == 1
    with pytest.raises(DecodeError, match="no video stream"):
        read_video_info(path)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4")]
)
def test_truncated_file(write_video, name, codec):
    container = {"movflags": "faststart"} if name == "a.mp4" else {}
    path = write_video(name, 200, codec=codec, container=container)
    whole = read_clips(path, [0])
    with open(path, "rb+") as file:
        file.truncate(int(0.6 * file.seek(0, 2)))
    np.testing.assert_array_equal(read_clips(path, [0]), whole)
    with pytest.raises(DecodeError, match=r"^corrupt: |^frames end at 4\.\d+ s; expected 8.00 s of them$"):
        read_clips(path, [1])


def test_overwritten_bytes_are_corrupt(write_video):
    path = write_video("a.mp4", 200, gop=20)
    whole = {place: read_clips(path, [place], 4) for place in (0, 1)}
    with open(path, "rb+") as file:
        file.seek(file.seek(0, 2) // 2)
        file.write(bytes(3000))
    for place, expected in whole.items():  # before and after the overwritten bytes
        np.testing.assert_array_equal(read_clips(path, [place], 4), expected)
    with pytest.raises(DecodeError, match="^corrupt: "):
        read_clips(path, [0.5])


def test_file_that_begins_between_key_frames(write_video):
    path = write_video("a.ts", 100, gop=40, sc_threshold="0")
    whole = read_clips(path, [0.99], 4)
    with open(path, "rb+") as file:
        data = file.read()
        file.seek(0)
        file.write(data[188 * (len(data) // 188 // 5) :])
        file.truncate()
    assert read_video_info(path).num_frames < 90
    np.testing.assert_array_equal(read_clips(path, [1], 4), whole)
    with pytest.raises(DecodeError, match=r"no frame before \d\.\d+ s can be decoded"):
        read_clips(path, [0], 4)


def test_too_many_pixels(write_video, monkeypatch):
    monkeypatch.setattr(video_file, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(DecodeError, match="frames of 64 x 48 pixels; expected 3071 pixels at most"):
        read_video_info(write_video("a.mp4", 3))


def test_missing_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"video needs PyAV .*pip install 'bridle_fairseq\[video\]'"):
        read_video_info("a.mp4")


PLAYLISTS = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile {address}\n",
    "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1"><BaseURL>{address}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\na=control:{address}\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_open_nothing(write_video, tmp_path, name):
    """Neither an address nor a file, whether the playlist is a file or in an archive."""
    write_video("a.mp4", 3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        for target in (address, str(tmp_path / "a.mp4"), "a.mp4"):
            text = PLAYLISTS[name].format(address=target)
            for alias in (name, "x.mp4", "x.ts"):
                (tmp_path / alias).write_text(text)
                with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
                    archive.write(tmp_path / alias)
                ((_, offset, length),) = members(tmp_path / "x.zip")
                for path in (str(tmp_path / alias), f"{tmp_path / 'x.zip'}:{offset}:{length}"):
                    with pytest.raises(
                        DecodeError, match="^not (a video container that is read here|readable as video)"
                    ):
                        read_video_info(path)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(DecodeError, match="^not a regular file$"):
        read_video_info(str(tmp_path / "a.mp4"))


def test_frames_that_no_file_of_its_size_holds(write_video):
    path = write_video("a.mp4", 20)
    with open(path, "rb+") as file:
        data = bytearray(file.read())
        at = data.index(b"stts") + 12  # the number of frames of the first duration
        data[at : at + 4] = (10**7).to_bytes(4, "big")
        file.seek(0)
        file.write(data)
    assert read_video_info(path).num_frames <= 20


def test_narrow_frames(write_video):
    with pytest.raises(DecodeError, match="^frames of 1000 x 2 pixels; expected sides of 1:64 at most$"):
        read_video_info(write_video("a.mkv", 2, size=(1000, 2), codec="mpeg4"))
