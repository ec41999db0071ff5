"""The decoding process: killed, hanging, growing, or inherited by a fork."""

import gc
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.data.video import worker as decoding_process
from bridle_fairseq.data.video.frames import even_places, read_clips, read_video_info
from bridle_fairseq.data.video.reader import VideoReader, borrowed_reader, count_frames
from bridle_fairseq.utils.errors import DecodeError, InputError

pytest.importorskip("av")

# A decoding process that misbehaves on files of certain names.
BROKEN_DECODER = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from bridle_fairseq.data.video import worker as decoding_process
read = decoding_process.read_clips
def lie(name):
    '''Answer in place of the program.'''
    answers = {
        "lies_at_random.mp4": os.urandom(64),
        "lies_about_length.mp4": (1 << 62).to_bytes(8, "little") + b"{}",
        "lies_in_size.mp4": (34).to_bytes(8, "little") + b'{"value": [1, 16, 9999, 9999, 3]} ',
        "lies_about_frames.mp4": (30).to_bytes(8, "little") + b'{"value": [1, 99, 48, 64, 3]} ',
    }
    for number in range(3, 10):  # the connection, wherever it is
        try:
            os.write(number, answers[name])
        except OSError:
            pass
    time.sleep(1000)
def read_clips(path, *arguments):
    name = os.path.basename(path)
    if name == "crashes.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hangs.mp4":
        time.sleep(1000)
    if name == "prints.mp4":
        os.write(1, b"printed by a library")
    if name == "surprises.mp4":
        raise KeyError("surprise")
    if name == "devours.mp4":
        decoding_process.hoard = bytearray(b"x") * (400 << 20)
    if name.startswith("lies"):
        lie(name)
    if name == "grows.mp4":
        decoding_process.hoard = bytearray(b'x') * (200 << 20)
    return read(path, *arguments)
decoding_process.read_clips = read_clips
decoding_process.serve(int(sys.argv[2]), int(sys.argv[3]))
"""


@pytest.fixture
def broken_decoder(monkeypatch):
    """Decoding processes that misbehave on certain files."""
    monkeypatch.setattr(decoding_process, "PROGRAM", BROKEN_DECODER)


@pytest.fixture
def reader():
    reader = VideoReader()
    yield reader
    reader.close()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_clips_equal_decoding_in_process(write_video, reader):
    path = write_video("a.mp4", 80)
    first = reader.clips(path, even_places(3), 4, 2, 24)
    assert first.dtype == torch.uint8 and first.shape == (3, 4, 24, 32, 3)
    expected = read_clips(path, even_places(3), 4, 2, 24)
    larger = reader.clips(path, [0.0, 1.0])
    np.testing.assert_array_equal(larger.numpy(), read_clips(path, [0, 1]))
    np.testing.assert_array_equal(first.numpy(), expected)  # not overwritten by the next request
    assert reader.info(path) == read_video_info(path)
    first[0] = 0  # a writable copy


def test_bad_file_has_the_same_error(tmp_path, write_video, reader):
    (tmp_path / "bad.mp4").write_bytes(b"junk" * 100)
    for ask in (reader.info, lambda path: reader.clips(path, [0])):
        with pytest.raises(DecodeError, match="^not readable as video: invalid data"):
            ask(str(tmp_path / "bad.mp4"))
    pid = reader.pid
    assert reader.clips(write_video("a.mp4", 3), [0]).shape[1] == 16 and reader.pid == pid


def test_name_that_is_not_utf8(write_video, reader):
    path = os.fsdecode(os.fsencode(write_video("a.mp4", 3)).replace(b"a.mp4", b"\xff\xe9.mp4"))
    os.rename(path.replace("\udcff\udce9", "a"), path)
    assert reader.clips(path, [0]).shape[1] == 16
    with pytest.raises(DecodeError, match="^No such file"):
        reader.info(path + "\udcff")


def test_killed_process_is_replaced(write_video, reader):
    path = write_video("a.mp4", 20)
    expected = reader.clips(path, [0])
    pid = reader.pid
    os.kill(pid, signal.SIGKILL)
    assert torch.equal(reader.clips(path, [0]), expected)
    assert reader.pid != pid and not alive(pid)


def test_file_that_kills_the_decoder(write_video, broken_decoder, reader):
    good, bad = write_video("a.mp4", 20), write_video("crashes.mp4", 20)
    expected = reader.clips(good, [0])
    for _ in range(2):
        with pytest.raises(DecodeError, match="^two decoding processes died of it, the last one ended with SIGSEGV$"):
            reader.clips(bad, [0])
        assert torch.equal(reader.clips(good, [0]), expected)


def test_file_that_takes_too_long(write_video, broken_decoder):
    reader = VideoReader(seconds=2)
    with pytest.raises(DecodeError, match="^not decoded within 2 s$"):
        reader.clips(write_video("hangs.mp4", 3), [0])
    reader._seconds = 60
    assert reader.clips(write_video("a.mp4", 3), [0]).shape[0] == 1


def test_kill_while_decoding(write_video, broken_decoder):
    reader = VideoReader(seconds=60)
    path, pids = write_video("hangs.mp4", 3), []

    def kill():
        while len(pids) < 2:
            process = reader._process
            if process is not None and process.pid not in pids:
                pids.append(process.pid)
                time.sleep(0.1)
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DecodeError, match="the last one ended with SIGKILL"):
        reader.clips(path, [0])
    killer.join()


def test_output_and_errors_of_libraries(write_video, broken_decoder, reader):
    assert reader.clips(write_video("prints.mp4", 3), [0]).shape[0] == 1
    with pytest.raises(DecodeError, match="^KeyError: 'surprise'$"):
        reader.clips(write_video("surprises.mp4", 3), [0])


def test_answers_that_make_no_sense(write_video, broken_decoder, reader):
    good = write_video("a.mp4", 20)
    expected = reader.clips(good, [0])
    for kind in ("at_random", "about_length", "in_size", "about_frames"):
        path = write_video(f"lies_{kind}.mp4", 2)
        with pytest.raises(
            DecodeError, match="^two decoding processes died of it, .* gave an answer that makes no sense"
        ):
            reader.clips(path, [0])
        assert torch.equal(reader.clips(good, [0]), expected)


@pytest.mark.parametrize("answer", [b"N.", b"[]", b"[" * 9999, b"\xff", b"1"])
def test_answers_in_another_form(answer):
    with pytest.raises(decoding_process._Invalid):
        decoding_process._parsed(answer)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [1] * 7,
        [0, "packets", 1.0, 1.0, 1, 1, 0],
        [1, "packets", 1.0, 1.0, 1, 1, 0, 0],
        [1, "", 1.0, 1.0, 1, 1, 0],
        [1, "packets", 0.0, 1.0, 1, 1, 0],
        [1, "packets", 1.0, -1.0, 1, 1, 0],
        [1, "packets", 1.0, 1.0, 1 << 40, 1, 0],
        [1, "packets", 1.0, 1.0, 1, 1, 10**300],
    ],
)
def test_properties_that_make_no_sense(value):
    with pytest.raises(decoding_process._Invalid):
        decoding_process._info_of(value)


def test_shared_memory_cannot_shrink(write_video, reader):
    reader.clips(write_video("a.mp4", 3), [0])
    with pytest.raises(PermissionError):
        os.ftruncate(reader._process._frames._handle, 0)


def test_file_that_needs_too_much_memory(write_video, broken_decoder, reader):
    good = write_video("a.mp4", 20)
    expected = reader.clips(good, [0])
    with pytest.raises(DecodeError, match="^two decoding processes died of it, the last one needed more than 320 MB$"):
        reader.clips(write_video("devours.mp4", 3), [0])
    assert torch.equal(reader.clips(good, [0]), expected)


def test_memory_limit(write_video, broken_decoder):
    reader = VideoReader(memory_limit=200 << 20)
    path = write_video("a.mp4", 3)
    reader.clips(path, [0])
    pid = reader.pid
    reader.clips(path, [0])
    assert reader.pid == pid
    assert reader.clips(write_video("grows.mp4", 3), [0]).shape[0] == 1
    assert reader.pid != pid and not alive(pid)
    reader.close()


def test_process_ends_with_its_reader(write_video, reader):
    other = VideoReader()
    other.clips(write_video("a.mp4", 3), [0])
    pid = other.pid
    del other
    gc.collect()
    assert not alive(pid)


def test_fork_and_copy_have_their_own_process(write_video, reader):
    path = write_video("a.mp4", 20)
    expected = reader.clips(path, [0])
    pid = reader.pid
    child = os.fork()
    if child == 0:
        ok = torch.equal(reader.clips(path, [0]), expected) and reader.pid != pid
        reader.close()
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(reader.clips(path, [0]), expected) and reader.pid == pid
    copy = pickle.loads(pickle.dumps(reader))
    assert torch.equal(copy.clips(path, [0]), expected) and copy.pid != pid


def test_count_frames_in_threads(write_video, tmp_path):
    paths = [write_video(f"{number}.mp4", number) for number in range(2, 8)]
    (tmp_path / "bad.mp4").write_bytes(b"junk" * 100)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(count_frames, paths)) == list(range(2, 8))
    with pytest.raises(DecodeError):
        count_frames(str(tmp_path / "bad.mp4"))


def test_idle_readers_are_reused_across_threads(write_video):
    path = write_video("a.mp4", 2)

    def pid_after_reading():
        with borrowed_reader() as reader:
            reader.info(path)
            return reader.pid

    def in_a_new_thread():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(pid_after_reading).result()

    assert in_a_new_thread() == in_a_new_thread() == pid_after_reading()
    with borrowed_reader() as first, borrowed_reader() as second:
        assert first.pid != second.pid
    with pytest.raises(DecodeError), borrowed_reader() as reader:
        reader.info(path + ".none")
    assert in_a_new_thread() in (first.pid, second.pid)


def test_missing_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match="video needs PyAV"):
        VideoReader()


class Clips(Dataset):
    """A minimal data set: a bad file is listed, and its item is None."""

    def __init__(self, manifest):
        self.manifest, self.skips, self.reader = manifest, SkipLog(manifest), VideoReader()

    def __len__(self):
        return len(self.manifest)

    def __getitem__(self, row):
        try:
            return row, int(self.reader.clips(self.manifest.path(row), [0.5], 2)[0, 0, :8].float().mean())
        except DecodeError as error:
            self.skips.add(row, str(error))
            return row, None


def test_data_loader_survives_file_that_kills_the_decoder(write_video, tmp_path, broken_decoder):
    names = ["0.mp4", "crashes.mp4", "2.mp4", "3.mp4", "4.mp4", "5.mp4"]
    for name in names:
        write_video(name, 10)
    clips = Clips(Manifest(tmp_path, names, [10] * len(names)))
    assert clips[0][1] is not None  # the main process has a decoding process, which workers inherit
    loader = DataLoader(clips, batch_size=1, num_workers=2, collate_fn=lambda items: items[0])
    for _ in range(2):
        values = dict(loader)
        assert sorted(values) == list(range(6)) and [row for row, value in values.items() if value is None] == [1]
    assert clips.skips.count == 1 and 1 in clips.skips
