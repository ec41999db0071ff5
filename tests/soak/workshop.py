"""What the attacks work with: generated data, reference runs, and the commands of the smallest model."""

import contextlib
import importlib.util
import json
import os
import shutil
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
AUDIT = Path(__file__).with_name("audit.py")
LIMIT = 120  # seconds of computing after which a command counts as hanging; it needs at most 10
IDLE = 60  # seconds without computing, after which it counts as hanging, too
ROWS = {False: 600, True: 300}  # short: of the manifest that corpus commands read; a block has at most 256
FOLDS = 2
SHORT_STAGES = [
    {"kind": "encoder", "updates": 5, "warmup_updates": 2},
    {"kind": "tokenizer", "updates": 4, "lr": 1e-3},
    {"kind": "encoder", "updates": 3},
    {"kind": "joint", "updates": 4, "tokenizer_every": 2},
]


def module_of(path):
    """A module by the path of its file; tests are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


integration, processes = (
    module_of(ROOT / "tests" / "integration" / f"{name}.py") for name in ("conftest", "processes")
)


class Workshop:
    """A folder with data and references, which all workers read, and a folder of one worker's own.

    Args:
        folder: made by :meth:`prepare`.
        worker: name of the own folder.
        short: shorter training, smaller corpus.
        forker: starts the commands; None: one of its own.
    """

    def __init__(self, folder, worker, short=False, forker=None):
        self.short, self.given = short, forker
        self.folder = Path(folder).resolve()
        self.scratch = self.folder / worker
        self.scratch.mkdir(parents=True, exist_ok=True)
        (self.scratch / "tmp").mkdir(exist_ok=True)
        self.data, self.clips = self.folder / "data", self.folder / "data" / "clips"
        self.checkpoint = self.folder / "train" / "checkpoints" / "checkpoint_last.pt"
        self.canary = f"canary-{self.folder.name}-of-the-environment"
        caches = dict.fromkeys(("TMPDIR", "TORCHINDUCTOR_CACHE_DIR"), str(self.scratch / "tmp"))
        self.environment = {"SOAK_SECRET": self.canary, **caches, "PYTHONDONTWRITEBYTECODE": "1"}
        os.environ |= self.environment

    @cached_property
    def forker(self):
        return self.given or processes.Forker()

    @cached_property
    def reader(self):
        from watch import WatchedReader

        return WatchedReader(self)

    def close(self):
        if "reader" in self.__dict__:
            self.reader.close()
        if "forker" in self.__dict__ and self.given is None:
            self.forker.end()

    # -- commands ------------------------------------------------------------------------------------------------------

    def training(self, *overrides, ranks=1):
        """The command that trains through all stages."""
        return integration.Fairseq(self.forker, self.data, "audio").command(
            "checkpoint.keep_interval_updates=2",
            "checkpoint.no_epoch_checkpoints=true",
            *overrides,
            stages=SHORT_STAGES if self.short else integration.STAGES,
            ranks=ranks,
        )

    def corpus_commands(self, out):
        """Name -> command that writes files for a corpus into the folder ``out``."""
        big = self.folder / "big.tsv"
        labels = self.folder / "labels.csv"
        return {
            "tokenize": ["bridle", "tokenize", self.checkpoint, big, "--out", out],
            "features": ["bridle", "features", self.checkpoint, big, "--out", out, "--layers", "all"],
            "units": ["bridle", "units", self.folder / "tokenize" / "big.codes", "--out", out],
            "crossval": ["bridle", "crossval", labels, self.clips, "--checkpoint", self.checkpoint, "--out", out],
            "export": ["bridle", "export", self.checkpoint, out],
            "manifest": ["bridle", "manifest", self.clips, "--dest", out, "--labels", labels],
        }

    def start(self, command, folder, ranks=1, allowed=(), limits=""):
        """Start a command in a folder. It may write into ``allowed``, by default into that folder."""
        places = [str(Path(place).resolve()) for place in (self.scratch / "tmp", *(allowed or [folder]))]
        env = {"SOAK_NOTES": str(self.notes), "SOAK_ALLOWED": ":".join(places), "SOAK_LIMIT": limits}
        env |= self.environment
        return self.forker.start(command, folder, ranks, env, AUDIT)

    @property
    def notes(self):
        return self.scratch / "notes"

    def finish(self, job, result, limit=LIMIT):
        """Wait for a job; note a hang: ``limit`` seconds of computing, or none for a minute. Returns the exit codes."""
        begin = last = sum(map(computing_seconds, job.pids))
        since = time.monotonic()
        while job.running():
            now = sum(map(computing_seconds, job.pids))
            if now - last > 0.05:
                last, since = now, time.monotonic()
            if now - begin > limit or time.monotonic() - since > IDLE:
                job.kill()
                result.add("hang", f"no end after {now - begin:.0f} s of computing:\n{job.log()[-2000:]}", job.log_path)
                break
            time.sleep(0.05)
        self.collect(result, job.log_path)
        return [job.codes[pid] for pid in job.pids]

    def collect(self, result, *places):
        """Take over the notes of audit.py, and note where the secret of the environment was written."""
        if self.notes.exists():
            for line in self.notes.read_text(errors="replace").splitlines():
                column, _, text = line.partition(" ")
                result.add(column, text, *places)
            self.notes.unlink()
        result_files = [path for place in places for path in ([place] if place.is_file() else place.rglob("*"))]
        for path in result_files:
            if path.is_file() and self.canary.encode() in path.read_bytes():
                result.add("leaked", f"{path} holds a variable of the environment", path)

    def run(self, command, folder, result, **options):
        """Run a command to its end; the exit code."""
        return self.finish(self.start(command, folder, **options), result)[0]

    def fresh(self, name):
        """An empty folder of this worker."""
        folder = self.scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    # -- comparison ----------------------------------------------------------------------------------------------------

    def compare_training(self, folder, reference, result):
        """Note a difference of a finished run from its reference."""
        saves, wanted = folder / "checkpoints", self.folder / reference / "checkpoints"
        try:
            found = state_of(saves / "checkpoint_last.pt")
        except Exception as error:
            result.add("lost", f"checkpoint_last.pt of a finished run cannot be read: {error!r}", saves)
            return
        different = integration.differences(found, state_of(wanted / "checkpoint_last.pt"))
        if different:
            result.add("lost", f"not the bits of an undisturbed run: {different[:6]}", folder / "log", saves)
        self.check_left_over(saves, wanted, result)

    @staticmethod
    def check_left_over(folder, reference, result):
        known = {path.name for path in reference.iterdir()}
        left = {path.name for path in folder.iterdir()} - known
        left = sorted(name for name in left if not (name.startswith("checkpoint") and name.endswith(".pt")))
        if left:
            result.add("lost", f"left over in {folder.name}: {left}")

    def compare_files(self, folder, reference, result, *evidence):
        """Note a difference between the files of two folders."""
        found, wanted = contents(folder), contents(self.folder / reference)
        if found != wanted:
            names = found.keys() | wanted.keys()
            different = sorted(name for name in names if found.get(name) != wanted.get(name))
            result.add("lost", f"other files than an undisturbed {reference}: {different[:8]}", folder, *evidence)

    # -- preparation ---------------------------------------------------------------------------------------------------

    def prepare(self, result, ranks=True):
        """Generate data and run every command once, undisturbed."""
        lengths = np.random.default_rng(0).integers(4800, 19200, integration.TRAIN_CLIPS).tolist()
        self.data.mkdir(exist_ok=True)
        integration.write_clips(self.data, "train", lengths, 1)
        integration.write_clips(self.data, "valid", [5000, 12000, 8000], 2)
        head, *rows = (self.data / "train.tsv").read_text().splitlines()
        (self.folder / "big.tsv").write_text("\n".join([head, *(rows * 30)[: ROWS[self.short]]]) + "\n")
        cells = [f"train {n}.wav,{'ab'[n % 2]},{n // 2 % FOLDS}" for n in range(len(rows))]
        (self.folder / "labels.csv").write_text("\n".join(["file,label,fold", *cells]) + "\n")
        codes = [self.run(self.training("checkpoint.save_interval_updates=3"), self.folder / "train", result)]
        if ranks:
            command = self.training("checkpoint.save_interval_updates=3", ranks=2)
            codes += self.finish(self.start(command, self.folder / "ranks", ranks=2), result)
        self.durations = {}
        for name in self.corpus_commands("."):
            began = time.monotonic()
            out = self.folder / name
            command = self.corpus_commands(out)[name]
            codes.append(self.run(command, self.folder / "logs" / name, result, allowed=[self.folder]))
            self.durations[name] = time.monotonic() - began
        (self.folder / "durations.json").write_text(json.dumps(self.durations))
        return codes

    def duration(self, name):
        """Seconds that a corpus command took undisturbed."""
        return json.loads((self.folder / "durations.json").read_text())[name]


def state_of(path):
    """The content of a checkpoint of our own."""
    return torch.load(path, map_location="cpu", weights_only=False)


def computing_seconds(pid):
    """CPU time of a process and its children so far."""
    ticks = 0
    with contextlib.suppress(OSError):  # it may end meanwhile
        children = [
            child for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
        ]
        for number in (pid, *children):
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def contents(folder):
    """Name -> bytes of all files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
