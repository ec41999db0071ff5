"""What the benchmarks of representations share: sounds decoded once, runs of the commands, means over seeds."""

from __future__ import annotations

import csv
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import soundfile

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decode(files: Iterable[Path], folder: Path, kind: str = "wav") -> None:
    """Write each sound as .wav (or .flac) into a folder, unless it is there: Opus would be decoded in every epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = folder / f"{file.stem}.{kind}"
        if not path.exists():
            samples, rate = soundfile.read(file, dtype="float32")
            soundfile.write(path, samples, rate, subtype="FLOAT" if kind == "wav" else "PCM_16")


def write_manifest(path: Path, root: Path, names: Iterable[str]) -> None:
    """A manifest of these files below ``root``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [str(root), *(f"{name}\t{soundfile.info(root / name).frames}" for name in names)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def command(name: str) -> str:
    """A command of this environment."""
    return str(Path(sys.executable).with_name(name))


def bridle(*arguments: object, threads: int | None = None) -> str:
    """Run a subcommand, with so many threads if given; what it printed."""
    environment = os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    call = [command("bridle"), *map(str, arguments)]
    return subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout


def measure_statistics(manifest: Path, *options: object) -> list[str]:
    """What ``bridle stats`` says of a manifest, as overrides."""
    return re.findall(r"model\.(?:fbank|pixel)_\w+=\S+", bridle("stats", manifest, *options))


def train(folder: Path, config: str, overrides: Sequence[str], threads: int, examples: str = "audio") -> Path:
    """One run of fairseq-hydra-train, gone on with where it stopped; the folder of its checkpoints.

    A run that has come to its end is not touched again.

    Args:
        folder: gets what it writes; ``stdout.log`` has what it printed.
        config: such as ``pretraining/small``.
        overrides: of the configuration.
        threads: of its arithmetic.
        examples: whose configuration it is: audio, images or video.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind, name = config.split("/")
    arguments = [
        command("fairseq-hydra-train"),
        *("--config-dir", str(EXAMPLES / examples / "config" / kind), "--config-name", name),
        f"common.user_dir={ROOT / 'bridle_fairseq'}",
        "common.cpu=true",
        f"checkpoint.save_dir={folder / 'checkpoints'}",
        f"hydra.run.dir={folder}",
        *overrides,
    ]
    finished = folder / "finished.json"
    if finished.exists() and json.loads(finished.read_text(encoding="utf-8")) == arguments:
        return folder / "checkpoints"
    with open(folder / "stdout.log", "a", encoding="utf-8") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(arguments, stdout=log, stderr=log, check=True, env=environment)
    finished.write_text(json.dumps(arguments), encoding="utf-8")
    return folder / "checkpoints"


def update_times(folder: Path) -> list[float]:
    """When each line of training was logged, in seconds: one in ``common.log_interval`` updates."""
    lines = (folder / "stdout.log").read_text(encoding="utf-8").splitlines()
    logged = [line for line in lines if "[train_inner]" in line and "{" in line]
    return [datetime.strptime(line[1:24], "%Y-%m-%d %H:%M:%S,%f").timestamp() for line in logged]


def finetune(
    folder: Path, checkpoint: Path, data: Path, overrides: Sequence[str], threads: int, examples: str = "audio"
) -> float:
    """Test accuracy of the best of a run with ``finetuning/tiny``, its choice made on the validation split.

    Args:
        folder, overrides, threads, examples: see :func:`train`.
        checkpoint: of pretraining.
        data: train, valid and test .tsv and .lbl, labels.csv.
    """
    from bridle_fairseq.training.launch import score_split

    own = [f"task.data={data}", f"model.checkpoint={checkpoint}"]
    best = train(folder, "finetuning/tiny", [*own, *overrides], threads, examples) / "checkpoint_best.pt"
    return score_split(best, data, "test", 64, "cpu")[0]


def untrained(folder: Path, checkpoint: Path, seed: int) -> Path:
    """The checkpoint with its weights drawn anew, to start from scratch with the same settings."""
    from bridle_fairseq.training.launch import write_untrained

    folder.mkdir(parents=True, exist_ok=True)
    return Path(write_untrained(str(checkpoint), folder / "untrained.pt", seed))


def mean_and_deviation(values: Sequence[float]) -> str:
    """As text; the deviation is that of a sample."""
    return f"{statistics.mean(values):.3f} +- {statistics.stdev(values) if len(values) > 1 else 0:.3f}"
