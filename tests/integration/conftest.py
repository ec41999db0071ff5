"""Run the real commands on generated files, with the smallest model that has all parts of the method.

Tests run on audio. Tests marked with ``modalities`` run on each of those modalities.
"""

import fcntl
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from generated import write_clips, write_images, write_videos

sys.path.pop(0)
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TRAIN_CLIPS, BATCH_SIZE = 26, 4
UPDATES_PER_EPOCH = {1: 7, 2: 4}  # number of ranks -> updates; the second rank has no seventh batch

TINY_MODEL = [
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


MODALITY_OVERRIDES = {
    # shorter than the longest clips, so that those are cropped at random
    "audio": ["task.max_sample_size=8000", "+model.num_mel_bins=64", "model.patch_size=[8,16]"],
    # attention, because the video configuration covers convolution
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
    """Modality of the files: audio, image or video."""
    return request.param


@pytest.fixture(scope="session")
def make_data(modality):
    """``make_data(folder, train=lengths, valid=lengths)`` fills a folder with manifests and clips, and returns it."""
    write = {"audio": write_clips, "image": write_images, "video": write_videos}[modality]

    def make(folder, **splits):
        folder.mkdir(parents=True, exist_ok=True)
        for seed, (split, lengths) in enumerate(splits.items(), 1):
            write(folder, split, lengths, seed)
        return folder

    return make


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """``made_once(name, make)``: the folder that ``make(folder)`` filled, in whichever test process came first."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name, make):
        folder, complete = base / name, base / f"{name}.complete"
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                complete.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def data(make_data, made_once, modality):
    """A folder with train.tsv, valid.tsv and their clips; sounds are 0.3 to 1.2 s long."""
    lengths = np.random.default_rng(0).integers(4800, 19200, TRAIN_CLIPS).tolist()
    return made_once(f"{modality}-data", lambda folder: make_data(folder, train=lengths, valid=[5000, 12000, 8000]))


class Run:
    """The results of a training run in its folder."""

    def __init__(self, folder, ranks=1):
        self.folder, self.ranks = folder, ranks
        self.log = (folder / "log").read_text(errors="replace")

    def path(self, update=None):
        """Path of the checkpoint after an update, or of the last checkpoint."""
        saves = self.folder / "checkpoints"
        if update is None:
            return saves / "checkpoint_last.pt"
        epochs, rest = divmod(update, UPDATES_PER_EPOCH[self.ranks])
        if rest == 0:
            return saves / f"checkpoint{epochs}.pt"
        (path,) = saves.glob(f"checkpoint_*_{update}.pt")
        return path

    def state(self, update=None):
        """Content of a checkpoint; see :meth:`path`."""
        return torch.load(self.path(update), weights_only=False)

    def logged(self, tag="train_inner"):
        """Update -> the JSON record of a tag; values are numbers, and those without a value are omitted."""
        records = {}
        for text in re.findall(rf"\[{tag}\]\[INFO\] - (\{{.*\}})$", self.log, re.MULTILINE):
            record = {key.removeprefix(f"{tag}_"): value for key, value in json.loads(text).items()}
            record = {key: float(value) for key, value in record.items() if value is not None}
            records[int(record["num_updates"])] = record
        return records

    def observed(self, rank=0):
        """Update -> the record of observe.py."""
        lines = (self.folder / f"observed.{rank}").read_text().splitlines()
        return {record["update"]: record for record in map(json.loads, lines)}


class Fairseq:
    """Starts training runs and other commands."""

    def __init__(self, forker, data, modality):
        self.forker, self.data, self.modality = forker, data, modality

    def command(self, *overrides, data=None, stages=None, ranks=1):
        """A training command; ``stages`` as in the configuration."""
        if stages is not None:
            overrides = (f"model.stages={stages_override(stages)}", *overrides)
        if ranks > 1:
            overrides += ("distributed_training.distributed_backend=gloo",)
        return [
            *("fairseq-hydra-train", "--config-dir", ROOT / CONFIGS[self.modality] / "pretraining"),
            *("--config-name", "tiny", f"common.user_dir={ROOT / 'bridle_fairseq'}", f"task.data={data or self.data}"),
            *TINY_MODEL,
            *MODALITY_OVERRIDES[self.modality],
            "hydra.run.dir=.",
            *overrides,
        ]

    def start(self, folder, *overrides, ranks=1, observe=False, hold=None, **options):
        """Start training in ``folder``. See observe.py for ``observe`` and ``hold`` (an update)."""
        env = {"OBSERVE": str(folder / "observed")} if observe else {}
        env |= {"HOLD": str(folder / "held"), "HOLD_AT": str(hold)} if hold else {}
        command = self.command(*overrides, ranks=ranks, **options)
        return self.forker.start(command, folder, ranks, env, HERE / "observe.py" if env else None)

    def train(self, folder, *overrides, code=0, ranks=1, **options):
        """Train to the end. The exit code of every rank must be ``code``."""
        job = self.start(folder, *overrides, ranks=ranks, **options)
        codes = job.wait()
        assert set(codes) == {code}, f"exit codes {codes}:\n{job.log()[-4000:]}"
        return Run(folder, ranks)

    def run_in(self, folder, ranks=1):
        """The results of a run that was started in another way."""
        return Run(folder, ranks)

    def run(self, folder, *argv, code=0, programs=None):
        """Run another command to its end; return what it prints. ``programs``: see ``Forker.programs``."""
        job = self.forker.start(argv, folder, programs=programs)
        codes = job.wait()
        assert codes == [code], f"exit codes {codes}:\n{job.log()[-4000:]}"
        return job.log()


def stages_override(stages):
    """Stages in the syntax of hydra's command line."""
    return "[" + ",".join("{" + ",".join(f"{k}:{v}" for k, v in stage.items()) + "}" for stage in stages) + "]"


@pytest.fixture(scope="session")
def programs(forker, tmp_path_factory):
    """A folder of commands; see ``Forker.programs``."""
    with forker.programs(tmp_path_factory.mktemp("programs")) as folder:
        yield folder


@pytest.fixture(scope="session")
def fairseq(forker, data, modality):
    """The :class:`Fairseq` of the session."""
    return Fairseq(forker, data, modality)


STAGES = [
    {"kind": "encoder", "updates": 13, "warmup_updates": 3},
    {"kind": "tokenizer", "updates": 10, "lr": 1e-3},
    {"kind": "encoder", "updates": 9, "warmup_updates": 2},
    {"kind": "joint", "updates": 8, "tokenizer_every": 2},
]


@pytest.fixture(scope="session")
def stages():
    """One stage of each kind and a second encoder stage; stages begin after 13, 23 and 32 updates."""
    return STAGES


OBSERVED = ["checkpoint.save_interval_updates=1", "dataset.validate_interval=1", "common.tensorboard_logdir=board"]


@pytest.fixture(scope="session")
def full_run(fairseq, made_once, modality):
    """A run through all stages: 40 updates, with a validation and a checkpoint after each."""
    options = {"stages": STAGES, "observe": True}
    return Run(made_once(f"{modality}-full_run", lambda folder: fairseq.train(folder, *OBSERVED, **options)))


@pytest.fixture(scope="session")
def two_rank_run(fairseq, made_once, modality):
    """The same on two ranks; each rank has one batch per update."""
    options = {"stages": STAGES, "observe": True, "ranks": 2}
    folder = made_once(f"{modality}-two_rank_run", lambda folder: fairseq.train(folder, *OBSERVED, **options))
    return Run(folder, ranks=2)


def differences(a, b):
    """Names of parameters, buffers, optimizer state and counters that are not bit-identical in two checkpoints."""
    names = [f"model.{k}" for k in a["model"].keys() ^ b["model"].keys()]
    names += [f"model.{k}" for k in a["model"].keys() & b["model"].keys() if not same(a["model"][k], b["model"][k])]
    mine, theirs = a["last_optimizer_state"], b["last_optimizer_state"]
    if mine["param_groups"] != theirs["param_groups"]:
        names.append("optimizer.param_groups")
    names += [f"optimizer.{k}" for k in mine["state"].keys() ^ theirs["state"].keys()]
    for number in mine["state"].keys() & theirs["state"].keys():
        left, right = mine["state"][number], theirs["state"][number]
        names += [f"optimizer.{number}.{k}" for k in left if not same(left[k], right[k])]
    for keys in (("optimizer_history", -1, "num_updates"), ("extra_state", "train_iterator")):
        left, right = a, b
        for key in keys:
            left, right = left[key], right[key]
        if left != right:
            names.append(f"{keys}: {left} and {right}")
    return names


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.fixture(scope="session")
def compare():
    """``compare(state, state)`` -> names of differences between two checkpoints; see :func:`differences`."""
    return differences
