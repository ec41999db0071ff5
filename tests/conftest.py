"""Shared fixtures: generated media. Each process uses one thread, for parallel and reproducible tests."""

import html.parser
import os
from fractions import Fraction

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; subprocesses inherit it

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
LONG = ("tests/integration/", "tests/soak/")  # begin first, so that parallel processes end together


def pytest_collection_modifyitems(items) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


class Structure(html.parser.HTMLParser):
    """The unclosed tags of an HTML page, and its addresses (src and href)."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs) -> None:
        pass


@pytest.fixture(scope="session")
def structure_of():
    """``structure_of(text)`` -> :class:`Structure` of an HTML page."""

    def parse(text: str) -> Structure:
        structure = Structure()
        structure.feed(text)
        return structure

    return parse


@pytest.fixture
def write_sound(tmp_path):
    """Write noise or given samples to a file in tmp_path; returns them (float32, frames or frames x channels)."""

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
    """Write noise files 0.wav, 1.wav, ... with these numbers of frames and their manifest; returns the manifest."""
    from bridle_fairseq.data.manifests.manifest import Manifest

    def make(frames, rate=16000):
        for number, count in enumerate(frames):
            write_sound(f"{number}.wav", count, rate, seed=number, subtype="FLOAT")
        path = tmp_path / "train.tsv"
        Manifest(tmp_path, [f"{number}.wav" for number in range(len(frames))], frames).write(path)
        return Manifest.read(path)

    return make


@pytest.fixture
def write_video(tmp_path):
    """Write a video of a moving pattern, different in every frame, to tmp_path / name; returns the path.

    ``times``: timestamp of each frame in milliseconds, for a variable frame rate. ``gop``: frames between key frames.
    """
    av = pytest.importorskip("av")

    def write(name, frames=90, size=(64, 48), rate=25, codec="libx264", pix_fmt="yuv420p", gop=30, times=None, **more):
        rotation, container = more.pop("rotation", 0), more.pop("container", {})
        path = str(tmp_path / name)
        with av.open(path, "w", options=container) as file:
            stream = file.add_stream(codec, rate=rate, options={"g": str(gop), **more})
            stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
            base = Fraction(1, 1000 if times else rate)
            stream.time_base = stream.codec_context.time_base = base
            if rotation:
                stream.set_display_rotation(rotation)
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = times[number] if times else number, base
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
        return path

    return write


def picture(number, width, height):
    """Height x width x 3: slow stripes, a moving bar, and the number as a row of black and white squares."""
    x, y = np.arange(width), np.arange(height)[:, None]
    image = np.stack([(x * 5 + number * 7) % 256 + 0 * y, 255 - (y * 4 + number) % 256 + 0 * x, (x + y) % 200], -1)
    image[:, number * 3 % width] = (250, 20, 20)
    for bit in range(8):
        image[:8, bit * width // 8 : (bit + 1) * width // 8] = 255 * (number >> bit & 1)
    return image.astype(np.uint8)


@pytest.fixture
def sentencepiece_model():
    """``sentencepiece_model(lines, vocab_size, codes)`` -> processor trained on lines of units."""
    sentencepiece = pytest.importorskip("sentencepiece")
    from bridle_fairseq.units.sentencepiece import train_on_units

    def make(lines, vocab_size, codes):
        return sentencepiece.SentencePieceProcessor(model_proto=train_on_units(lines, vocab_size, codes))

    return make
