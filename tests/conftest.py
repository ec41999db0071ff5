"""Shared fixtures: generated media, small models, their exports. One thread a process, so tests are reproducible."""

import dataclasses
import gc
import html.parser
import os
from fractions import Fraction
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; subprocesses inherit it

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
LONG = ("tests/integration/", "tests/packaging/", "tests/soak/")  # begin first, so that parallel processes end together


def pytest_collection_modifyitems(items) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
    gc.freeze()  # the garbage collector skips what all modules have imported


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


SMALL = dict(encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
SMALL |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, num_codebooks=3, fbank_mean=-5.0)
SMALL |= {"stages": [{"kind": "tokenizer", "updates": 4}], "num_mel_bins": 64, "patch_size": [8, 16]}
CLASS_NAMES = ["dog", "rain, heavy", "sea"]


def _write_state(path: Path, model: dict, task: dict, weights: dict, **more) -> None:
    from fairseq.dataclass.configs import CommonConfig
    from omegaconf import OmegaConf

    common = OmegaConf.to_container(OmegaConf.structured(CommonConfig), enum_to_str=True)
    history = [{"optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 3}]
    meters = {"valid": [(10, "loss", "AverageMeter", {"val": 1.0, "sum": 25.0, "count": 10, "round": 4})]}
    extra = {"metrics": meters, "previous_training_time": 7200.0}
    state = {
        "cfg": {"model": model, "task": task, "common": common, "dataset": {"train_subset": "train"}},
        "args": None,
    }
    torch.save({**state, "extra_state": extra, "optimizer_history": history, "model": weights, **more}, path)


@pytest.fixture(scope="session")
def write_state():
    """``write_state(path, model, task, weights, **more)`` writes a checkpoint; see :func:`_write_state`."""
    return _write_state


@pytest.fixture(scope="session")
def small():
    """Settings of a small model for sound."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Folder with a checkpoint of each model, and the models: (folder, bridle, classifier)."""
    import bridle_fairseq
    from bridle_fairseq.data.manifests.manifest import Manifest
    from bridle_fairseq.nn.classifier import Classifier
    from bridle_fairseq.nn.ctc import Transcriber
    from bridle_fairseq.nn.settings import BridleSettings

    bridle_fairseq.register()
    from bridle_fairseq.models.bridle import BridleModel
    from bridle_fairseq.tasks.stages import begin_update

    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    model = BridleModel(BridleSettings(**SMALL)).train()
    begin_update(model, 0)
    model(torch.randn(4, 16000).cumsum(1).sin() * 0.3)
    model.commit()
    soundfile.write(folder / "a.wav", np.zeros(800), 16000)
    Manifest(str(folder), ["a.wav"], [800]).write(folder / "train.tsv")
    task = {
        "_name": "bridle_pretraining",
        "data": str(folder),
        "sample_rate": 16000,
        "max_sample_size": 8000,
        "seed": 1,
    }
    settings = dataclasses.asdict(model.settings)
    _write_state(folder / "bridle.pt", {"_name": "bridle", **settings}, task, model.state_dict())
    half = {name: value.half() if name.startswith("encoder.") else value for name, value in model.state_dict().items()}
    _write_state(folder / "half.pt", {"_name": "bridle", **settings, "precision": "bfloat16"}, task, half)
    classifier = Classifier(model.settings, 3, "frequency").eval()
    config = {"_name": "bridle_classifier", "settings": settings, "pooling": "frequency"}
    classes = {"classes": {"ids": ["/m/1", "/m/2", "/m/3"], "names": CLASS_NAMES}}
    task |= {"_name": "bridle_classification", "multi_label": False}
    _write_state(folder / "classifier.pt", config, task, classifier.state_dict(), task_state=classes)
    symbols = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "|"]
    config = {"_name": "bridle_ctc", "settings": settings, "pooling": "frequency", "upsample": 4}
    task |= {"_name": "bridle_ctc", "labels": "ltr"}
    transcriber = Transcriber(model.settings, len(symbols))
    torch.nn.init.normal_(transcriber.frame_head.weight)  # so that transcripts are not empty
    _write_state(folder / "ctc.pt", config, task, transcriber.state_dict(), task_state={"symbols": symbols})
    return folder, model.eval(), classifier


@pytest.fixture(scope="session")
def exported(made):
    """Folders of exports by name; none may be changed."""
    from bridle_fairseq.cli import main as bridle

    folder = made[0]
    for name, options in (("all", []), ("encoder", ["--part", "encoder"]), ("tokenizer", ["--part", "tokenizer"])):
        assert bridle.main(["export", str(folder / "bridle.pt"), str(folder / name), *options]) == 0
    for name in ("half", "classifier", "ctc"):
        assert bridle.main(["export", str(folder / f"{name}.pt"), str(folder / name)]) == 0
    return folder


@pytest.fixture(scope="session")
def sound():
    """A batch of two clips, the second one shorter: B x S, lengths, padding mask."""
    source = torch.randn(2, 9000, generator=torch.Generator().manual_seed(1)).cumsum(1).sin() * 0.3
    return source, [9000, 5000], torch.arange(9000) >= torch.tensor([9000, 5000])[:, None]


@pytest.fixture(scope="session")
def forker():
    """The ``Forker`` of the session (integration/processes.py), which starts commands quickly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "integration"))
        from processes import Forker
    forker = Forker()
    yield forker
    forker.end()


@pytest.fixture
def hub_server():
    """A :class:`Hub` of hub_server.py: a small Hugging Face Hub on loopback."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        from hub_server import serve
    with serve() as hub:
        yield hub


@pytest.fixture
def hub_here(hub_server, tmp_path, monkeypatch):
    """The server as the Hub of this process, with a cache and an account of its own."""
    from huggingface_hub import constants

    from bridle_fairseq.exported.hub import download

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub_server.endpoint)
    values = {"HUGGINGFACE_CO_URL_TEMPLATE": template, "ENDPOINT": hub_server.endpoint, "HF_HUB_DISABLE_XET": True}
    for name, value in {**values, "HF_HUB_CACHE": str(tmp_path / "hub_cache")}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", hub_server.token)
    download.cache_clear()
    yield hub_server
    download.cache_clear()
