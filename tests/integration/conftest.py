"""Runs of the real commands on files made here, with the smallest model that has all parts of the method.

A test runs on sound; marked with ``modalities``, on the files of each of those.
"""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TRAIN_CLIPS, BATCH_SIZE = 26, 4
UPDATES_OF_EPOCH = {1: 7, 2: 4}  # by ranks: the second rank has no seventh batch
TIMEOUT = 300

MINUSCULE = [
    "common.cpu=true",
    "common.log_interval=1",
    "common.no_progress_bar=true",
    f"dataset.batch_size={BATCH_SIZE}",
    "dataset.num_workers=0",
    "dataset.validate_interval_updates=0",
    "checkpoint.keep_interval_updates=-1",
    "checkpoint.no_epoch_checkpoints=false",
    "model.encoder_width=32",
    "model.encoder_depth=2",
    "model.encoder_heads=2",
    "model.decoder_width=16",
    "model.decoder_depth=2",
    "model.decoder_heads=2",
    "model.tokenizer_depth=2",
    "model.num_codebooks=2",
    "model.codebook_size=12",
    "model.codebook_dim=8",
    "model.precision=float32",
]


OF_MODALITY = {
    # under the longest clips: they are cropped at random
    "audio": ["task.max_sample_size=8000", "+model.num_mel_bins=64", "model.patch_size=[8,16]"],
    # attention instead of the convolutions that are configured, which videos have
    "image": ["task.image_size=24", "model.patch_size=[8,6]", "model.decoder_kind=attention"],
    "video": ["task.num_frames=4", "task.image_size=16", "task.crop=true", "model.patch_size=[2,8,4]"],
}
CONFIGS = {"audio": "examples/audio/config", "image": "examples/images/config", "video": "examples/video/config"}


def pytest_generate_tests(metafunc):
    if "modality" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("modalities")
        metafunc.parametrize("modality", marker.args if marker else ("audio",), indirect=True, scope="session")


@pytest.fixture(scope="session")
def modality(request):
    """What the files are."""
    return request.param


def write_images(folder, split, lengths, seed):
    """Bars and blobs of any size, in noise; and their manifest."""
    random = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        height, width = 20 + length % 17, 20 + length % 23
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x * random.uniform(0, 0.6) + y * random.uniform(0, 0.6) + random.uniform(0, 6)) for _ in "RGB"]
        pixels = 128 + 90 * np.stack(waves, -1) + 8 * random.standard_normal((height, width, 3))
        path = Path("clips", f"{split} {number}.png")
        (folder / path).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / path)
        rows.append(f"{path}\t1\n")
    (folder / f"{split}.tsv").write_text(f"{folder}\n" + "".join(rows))


def write_videos(folder, split, lengths, seed):
    """A square that moves over waves, for 3 to 20 frames of any size; and their manifest."""
    av = pytest.importorskip("av")
    random = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        frames, width, height = 3 + length % 18, 16 + length % 5 * 2, 16 + length % 7 * 2
        path = Path("clips", f"{split} {number}.mp4")
        (folder / path).parent.mkdir(exist_ok=True)
        y, x = np.mgrid[:height, :width]
        pitch, speed = random.uniform(0, 0.6, (3, 2)), random.integers(-2, 3, 2)
        waves = np.stack([128 + 90 * np.sin(x * a + y * b + 6 * a) for a, b in pitch], -1)
        # x264's assembler reads past frames as small as these: without this each run has other files.
        options = {"crf": "18", "threads": "1", "x264-params": "asm=0"}
        with av.open(str(folder / path), "w") as file:
            stream = file.add_stream("libx264", rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in range(frames):
                pixels = waves.clip(0, 255).astype(np.uint8)
                pixels[(y - frame * speed[0]) % height < 6] = 255
                pixels[(x - frame * speed[1]) % width < 4] = 0
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode())
        rows.append(f"{path}\t{frames}\n")
    (folder / f"{split}.tsv").write_text(f"{folder}\n" + "".join(rows))


def write_clips(folder, split, lengths, seed):
    """Tones that wander, in noise; and their manifest."""
    random = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        pitch = random.uniform(0.02, 0.8, length // 400 + 1).repeat(400)[:length]
        wave = 0.3 * np.sin(np.cumsum(pitch)) + 0.01 * random.standard_normal(length)
        path = Path("clips", f"{split} {number}.wav")
        (folder / path).parent.mkdir(exist_ok=True)
        soundfile.write(folder / path, wave, 16000)
        rows.append(f"{path}\t{length}\n")
    (folder / f"{split}.tsv").write_text(f"{folder}\n" + "".join(rows))


@pytest.fixture(scope="session")
def make_data(modality):
    """``make_data(folder, train=lengths, valid=lengths)`` makes a folder of manifests and clips, and returns it."""
    write = {"audio": write_clips, "image": write_images, "video": write_videos}[modality]

    def make(folder, **splits):
        folder.mkdir(parents=True, exist_ok=True)
        for seed, (split, lengths) in enumerate(splits.items(), 1):
            write(folder, split, lengths, seed)
        return folder

    return make


@pytest.fixture(scope="session")
def data(make_data, tmp_path_factory):
    """A folder with train.tsv, valid.tsv and their clips of 0.3 to 1.2 s."""
    lengths = np.random.default_rng(0).integers(4800, 19200, TRAIN_CLIPS).tolist()
    return make_data(tmp_path_factory.mktemp("data"), train=lengths, valid=[5000, 12000, 8000])


class Job:
    """A command that runs, in one process or in several ranks."""

    def __init__(self, forker, pids, log):
        self.forker, self.pids, self.log_path, self.codes = forker, pids, log, {}

    def running(self):
        for pid in set(self.pids) - set(self.codes):
            code = self.forker.ask({"poll": pid})
            if code is not None:
                self.codes[pid] = code
        return len(self.codes) < len(self.pids)

    def wait(self):
        """Exit codes of all ranks."""
        deadline = time.monotonic() + TIMEOUT
        while self.running():
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"still running after {TIMEOUT} s:\n{self.log()[-3000:]}")
            time.sleep(0.1)
        return [self.codes[pid] for pid in self.pids]

    def kill(self):
        """SIGKILL to all ranks."""
        for pid in set(self.pids) - set(self.codes):
            os.kill(pid, signal.SIGKILL)
            self.codes[pid] = self.forker.ask({"wait": pid})

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


class Forker:
    """forker.py, and the way to ask it."""

    def __init__(self):
        environment = dict(os.environ, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "forker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=HERE,
        )

    def ask(self, request):
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def start(self, argv, folder, ranks=1, env=None, before=None):
        """Start a command in a folder; with several ranks, with the environment that torchrun would give each."""
        folder.mkdir(parents=True, exist_ok=True)
        log, pids = folder / "log", []
        port = free_port() if ranks > 1 else None
        for rank in range(ranks):
            more = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1"} if port else {}
            more = {key: str(value) for key, value in {**more, "MASTER_PORT": port}.items() if value is not None}
            request = {"argv": [str(a) for a in argv], "cwd": str(folder), "log": str(log)}
            request |= {"env": {**(env or {}), **more}, "before": before and str(before)}
            pids.append(self.ask({"run": request}))
        return Job(self, pids, log)


def free_port():
    """A port below those that the system gives to connections of its own choice: until rank 0 listens there, one of
    another test, which runs at the same time, could get it, and the other ranks would wait for an answer.
    """
    for port in random.SystemRandom().sample(range(15000, 32000), 100):
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("100 ports are all taken")


class Run:
    """What a training run left in its folder."""

    def __init__(self, folder, ranks=1):
        self.folder, self.ranks = folder, ranks
        self.log = (folder / "log").read_text(errors="replace")

    def path(self, update=None):
        """The checkpoint after so many updates, or the last one."""
        saves = self.folder / "checkpoints"
        if update is None:
            return saves / "checkpoint_last.pt"
        epochs, rest = divmod(update, UPDATES_OF_EPOCH[self.ranks])
        if rest == 0:
            return saves / f"checkpoint{epochs}.pt"
        (found,) = saves.glob(f"checkpoint_*_{update}.pt")
        return found

    def state(self, update=None):
        return torch.load(self.path(update), weights_only=False)

    def logged(self, tag="train_inner"):
        """The JSON records of a tag, by update; values as numbers, those without a value left out."""
        found = {}
        for text in re.findall(rf"\[{tag}\]\[INFO\] - (\{{.*\}})$", self.log, re.MULTILINE):
            record = {key.removeprefix(f"{tag}_"): value for key, value in json.loads(text).items()}
            record = {key: float(value) for key, value in record.items() if value is not None}
            found[int(record["num_updates"])] = record
        return found

    def observed(self, rank=0):
        """The lines of observe.py, by update."""
        lines = (self.folder / f"observed.{rank}").read_text().splitlines()
        return {record["update"]: record for record in map(json.loads, lines)}


class Fairseq:
    """Starts training runs and other commands."""

    def __init__(self, forker, data, modality):
        self.forker, self.data, self.modality = forker, data, modality

    def command(self, *overrides, data=None, stages=None, ranks=1):
        """A training command, as it would be typed; ``stages`` as in the configuration."""
        if stages is not None:
            overrides = (f"model.stages={listed(stages)}", *overrides)
        if ranks > 1:
            overrides += ("distributed_training.distributed_backend=gloo",)
        return [
            *("fairseq-hydra-train", "--config-dir", ROOT / CONFIGS[self.modality] / "pretraining"),
            *("--config-name", "tiny", f"common.user_dir={ROOT / 'bridle_fairseq'}", f"task.data={data or self.data}"),
            *MINUSCULE,
            *OF_MODALITY[self.modality],
            "hydra.run.dir=.",
            *overrides,
        ]

    def start(self, folder, *overrides, ranks=1, observe=False, hold=None, **options):
        """Start training in ``folder``; for ``observe`` and ``hold`` (an update) see observe.py."""
        env = {"OBSERVE": str(folder / "observed")} if observe else {}
        env |= {"HOLD": str(folder / "held"), "HOLD_AT": str(hold)} if hold else {}
        command = self.command(*overrides, ranks=ranks, **options)
        return self.forker.start(command, folder, ranks, env, HERE / "observe.py" if env else None)

    def train(self, folder, *overrides, code=0, ranks=1, **options):
        """Train to the end; the exit code of every rank must be ``code``."""
        job = self.start(folder, *overrides, ranks=ranks, **options)
        codes = job.wait()
        assert set(codes) == {code}, f"exit codes {codes}:\n{job.log()[-4000:]}"
        return Run(folder, ranks)

    def left_by(self, folder, ranks=1):
        """What a run that was started otherwise left in a folder."""
        return Run(folder, ranks)

    def run(self, folder, *argv, code=0):
        """Run another command to its end; what it printed."""
        job = self.forker.start(argv, folder)
        codes = job.wait()
        assert codes == [code], f"exit codes {codes}:\n{job.log()[-4000:]}"
        return job.log()


def listed(stages):
    """Stages as hydra's command line takes them."""
    return "[" + ",".join("{" + ",".join(f"{k}:{v}" for k, v in stage.items()) + "}" for stage in stages) + "]"


@pytest.fixture(scope="session")
def forker():
    """See :class:`Forker`."""
    started = Forker()
    yield started
    started.process.stdin.close()
    started.process.wait()


@pytest.fixture(scope="session")
def fairseq(forker, data, modality):
    """Starts commands: see :class:`Fairseq`."""
    return Fairseq(forker, data, modality)


STAGES = [
    {"kind": "encoder", "updates": 13, "warmup_updates": 3},
    {"kind": "tokenizer", "updates": 10, "lr": 1e-3},
    {"kind": "encoder", "updates": 9, "warmup_updates": 2},
    {"kind": "joint", "updates": 8, "tokenizer_every": 2},
]


@pytest.fixture(scope="session")
def stages():
    """One stage of each kind, the encoder's twice: their boundaries are at 13, 23 and 32."""
    return STAGES


OBSERVED = ["checkpoint.save_interval_updates=1", "dataset.validate_interval=1", "common.tensorboard_logdir=board"]


@pytest.fixture(scope="session")
def whole(fairseq, tmp_path_factory):
    """One run through all stages, 40 updates, with a validation and a checkpoint after each."""
    return fairseq.train(tmp_path_factory.mktemp("whole"), *OBSERVED, stages=STAGES, observe=True)


@pytest.fixture(scope="session")
def pair(fairseq, tmp_path_factory):
    """The same on two ranks, each of which takes a batch in an update."""
    return fairseq.train(tmp_path_factory.mktemp("pair"), *OBSERVED, stages=STAGES, observe=True, ranks=2)


def differences(a, b):
    """Names of what is not the same to the bit in two checkpoints: parameters, buffers, optimizer, position."""
    found = [f"model.{k}" for k in a["model"].keys() ^ b["model"].keys()]
    found += [f"model.{k}" for k in a["model"].keys() & b["model"].keys() if not same(a["model"][k], b["model"][k])]
    mine, theirs = a["last_optimizer_state"], b["last_optimizer_state"]
    if mine["param_groups"] != theirs["param_groups"]:
        found.append("optimizer.param_groups")
    found += [f"optimizer.{k}" for k in mine["state"].keys() ^ theirs["state"].keys()]
    for number in mine["state"].keys() & theirs["state"].keys():
        pair = mine["state"][number], theirs["state"][number]
        found += [f"optimizer.{number}.{k}" for k in pair[0] if not same(pair[0][k], pair[1][k])]
    for part in (("optimizer_history", -1, "num_updates"), ("extra_state", "train_iterator")):
        left, right = a, b
        for key in part:
            left, right = left[key], right[key]
        if left != right:
            found.append(f"{part}: {left} and {right}")
    return found


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.fixture(scope="session")
def compare():
    """``compare(state, state)`` -> names of what differs between two checkpoints; see :func:`differences`."""
    return differences
