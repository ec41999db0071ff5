"""Shared by the benchmarks of representations: decoded sounds, runs of training and of commands, means over seeds."""

from __future__ import annotations

import csv
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import soundfile

from bridle_fairseq.training.configs import EXAMPLES
from bridle_fairseq.training.launch import TrainingRun
from bridle_fairseq.training.log import read_log

ROOT = EXAMPLES.parent
# The configurations as most figures of BENCHMARKS.md were measured. Sound: local attention, targets with the mean
# spectrum, two iterations. `tiny` and `small` have changed since then (docs/recipes.md).
_TARGETS = ("model.target_norm=none",)
_WINDOWS = (
    *_TARGETS,
    "model.decoder_kind=attention",
    "model.decoder_window=[4,4]",
    "model.decoder_heads=4",
    "model.predict_share=1.0",
)


def _stages(*stages: tuple[str, int, float, int]) -> str:
    names = ("kind", "updates", "lr", "warmup_updates")
    texts = ("{" + ",".join(f"{n}:{v}" for n, v in zip(names, stage, strict=True)) + "}" for stage in stages)
    return f"model.stages=[{','.join(texts)}]"


EARLIER: dict[tuple[str, str], Sequence[str]] = {
    ("audio", "tiny"): (
        *_WINDOWS,
        "model.mask_ratio=0.6",
        _stages(("encoder", 600, 5e-4, 60), ("tokenizer", 200, 5e-4, 20), ("encoder", 400, 5e-4, 40)),
    ),
    ("audio", "small"): (
        *_WINDOWS,
        "model.mask_ratio=0.75",
        _stages(("encoder", 800, 1e-3, 150), ("tokenizer", 150, 5e-4, 15), ("encoder", 800, 1e-3, 80)),
    ),
    ("audio", "tiny_fast"): (*_TARGETS, _stages(("encoder", 1120, 5e-4, 60), ("tokenizer", 80, 5e-4, 8))),
    ("images", "tiny"): ("model.mask_ratio=0.6", "model.predict_share=1.0", *_TARGETS),
}


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decode(files: Iterable[Path], folder: Path, kind: str = "wav") -> None:
    """Convert sounds to .wav (or .flac) in a folder, because decoding Opus is slow; existing files are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = folder / f"{file.stem}.{kind}"
        if not path.exists():
            samples, rate = soundfile.read(file, dtype="float32")
            soundfile.write(path, samples, rate, subtype="FLOAT" if kind == "wav" else "PCM_16")


def write_manifest(path: Path, root: Path, names: Iterable[str]) -> None:
    """Write a manifest of these files below ``root``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [str(root), *(f"{name}\t{soundfile.info(root / name).frames}" for name in names)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_labelled(folder: Path, root: Path, splits: Mapping[str, Sequence[tuple[str, str]]]) -> list[str]:
    """Write manifests and labels of splits, (file below ``root``, class) each, and labels.csv; the sorted classes."""
    classes = sorted({label for rows in splits.values() for _, label in rows})
    lines = [f"{number},{name},{name}" for number, name in enumerate(classes)]
    for split, rows in splits.items():
        write_manifest(folder / f"{split}.tsv", root, [file for file, _ in rows])
        (folder / f"{split}.lbl").write_text("".join(f"{label}\n" for _, label in rows), encoding="utf-8")
    (folder / "labels.csv").write_text("\n".join(["index,mid,display_name", *lines]) + "\n", encoding="utf-8")
    return classes


def best_rows(folder: Path) -> dict[str, dict]:
    """The rows of a folder's probe.json that validate best: of ``encoder``, ``untrained`` and ``input``."""
    best: dict[str, dict] = {}
    for row in json.loads((folder / "probe.json").read_text(encoding="utf-8"))["rows"]:
        name = row["features"] if row["features"] in ("encoder", "untrained") else "input"
        if name not in best or row["valid"] > best[name]["valid"]:
            best[name] = row
    return best


def command(name: str) -> str:
    """Path of a command of this environment."""
    return str(Path(sys.executable).with_name(name))


def bridle(*arguments: object, threads: int | None = None) -> str:
    """Run a subcommand of ``bridle`` with this number of threads; what it printed."""
    environment = os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    call = [command("bridle"), *map(str, arguments)]
    return subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout


def measure_statistics(manifest: Path, *options: object) -> list[str]:
    """Mean and deviation of a manifest's input as overrides, by ``bridle stats``."""
    return re.findall(r"model\.(?:fbank|pixel)_\w+=\S+", bridle("stats", manifest, *options))


def train(
    folder: Path,
    config: str,
    overrides: Sequence[str],
    threads: int,
    examples: str = "audio",
    earlier: bool = True,
) -> Path:
    """One training run on the CPU; the folder of its checkpoints.

    A run that was stopped is resumed. A finished run is not repeated.

    Args:
        folder: for its files; ``stdout.log`` is its log.
        config: such as ``pretraining/small``.
        overrides: of the configuration.
        threads: of the process.
        examples: folder of the configuration in ``examples``: audio, images, video, speech or units.
        earlier: use the configurations of :data:`EARLIER`.
    """
    kind, name = config.split("/")
    if earlier and kind == "pretraining":
        overrides = [*EARLIER.get((examples, name), ()), *overrides]
    run = TrainingRun(
        EXAMPLES / examples / "config" / kind,
        name,
        save_dir=folder / "checkpoints",
        hydra_dir=folder,
        overrides=overrides,
        name=str(folder),
        cpu=True,
        threads=threads,
    )
    finished = folder / "finished.json"
    if not finished.exists() or json.loads(finished.read_text(encoding="utf-8")) != run.command():
        run.run(folder / "stdout.log")
        finished.write_text(json.dumps(run.command()), encoding="utf-8")
    return run.save_dir


def update_times(folder: Path) -> list[float]:
    """When each record of training was logged, in seconds: one for ``common.log_interval`` updates."""
    records = read_log(folder / "stdout.log")
    return [record.logged_at for record in records if record.split == "train" and record.logged_at is not None]


def finetune(
    folder: Path,
    checkpoint: Path,
    data: Path,
    overrides: Sequence[str],
    threads: int,
    examples: str = "audio",
    config: str = "finetuning/tiny",
) -> float:
    """Test accuracy of the checkpoint of a run of fine-tuning that is best on the validation split.

    Args:
        folder, overrides, threads, examples, config: see :func:`train`.
        checkpoint: pretrained.
        data: folder with train, valid and test .tsv and .lbl, and labels.csv.
    """
    from bridle_fairseq.training.finetuning import score_split

    own = [f"task.data={data}", f"model.checkpoint={checkpoint}"]
    best = train(folder, config, [*own, *overrides], threads, examples) / "checkpoint_best.pt"
    return score_split(best, data, "test", 64, "cpu")[0]


def untrained(folder: Path, checkpoint: Path, seed: int) -> Path:
    """A checkpoint with the same settings and random weights, to train from scratch."""
    from bridle_fairseq.models.checkpoints import write_untrained

    return Path(write_untrained(str(checkpoint), folder / "untrained.pt", seed))


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and sample standard deviation as text."""
    return f"{statistics.mean(values):.3f} +- {statistics.stdev(values) if len(values) > 1 else 0:.3f}"
