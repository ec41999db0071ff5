"""What pretraining with `small` is worth: a linear probe on spoken keywords, speakers of the test unseen.

    python benchmarks/keywords.py DATA --work WORK [--seeds 1 2 3] [--methods rq vq] [--jobs 2]

DATA is the folder of Arabic Speech Commands (meta.csv with name, keyword and split; sound files in opus/). Pretraining
sees the train split without labels; the probe (logistic regression) is fitted on the train split, layer and
regularisation are chosen on the validation split, the test split is used once. Printed for each method and seed: the
encoder after iteration 1 and after iteration 2; and once the untrained encoder and log-mel statistics.

Runs are resumed where they stopped, and what was probed is kept in WORK/probes.json. Sounds are decoded once into WORK:
Opus would be decoded in every epoch.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch

ROOT = Path(__file__).resolve().parent.parent
SPLITS = {"train": "train", "valid": "val", "test": "test"}
METHODS = {"rq": [], "vq": ["+variant=vq"]}
POOLINGS = ("mean", "frequency")
STRENGTHS = (0.003, 0.01, 0.03, 0.1)


def prepare(data: Path, work: Path) -> np.ndarray:
    """Decode the sounds, write a manifest of each split, and return the names of the classes."""
    with open(data / "meta.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = np.unique([row["keyword"] for row in rows])
    sounds = work / "sounds"
    sounds.mkdir(parents=True, exist_ok=True)
    for split, name in SPLITS.items():
        part = [row for row in rows if row["split"] == name]
        lines = [str(sounds)]
        for row in part:
            path = sounds / f"{row['name']}.wav"
            if not path.exists():
                samples, rate = soundfile.read(data / "opus" / f"{row['name']}.opus", dtype="float32")
                soundfile.write(path, samples, rate, subtype="FLOAT")
            lines.append(f"{path.name}\t{soundfile.info(path).frames}")
        (work / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        keywords = np.searchsorted(classes, [row["keyword"] for row in part])
        np.save(work / f"{split}.labels.npy", keywords)
    return classes


def pretrain(work: Path, method: str, seed: int, statistics_of_data: list[str], threads: int, extra: list[str]) -> Path:
    """One run of fairseq-hydra-train; the folder of its checkpoints."""
    folder = work / f"{method}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        str(Path(sys.executable).with_name("fairseq-hydra-train")),
        *("--config-dir", str(ROOT / "examples/audio/config/pretraining"), "--config-name", "small"),
        *METHODS[method],
        f"common.user_dir={ROOT / 'bridle_fairseq'}",
        "common.cpu=true",
        f"common.seed={seed}",
        f"task.data={work}",
        "task.roll=false",
        f"checkpoint.save_dir={folder / 'checkpoints'}",
        "checkpoint.keep_interval_updates=-1",
        f"hydra.run.dir={folder}",
        *statistics_of_data,
        *extra,
    ]
    with open(folder / "stdout.log", "a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, stdout=log, stderr=log, check=True, env=environment)
    return folder / "checkpoints"


def iterations(checkpoints: Path) -> dict[str, Path]:
    """The checkpoints at the end of each encoder stage."""
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    state = load_checkpoint_to_cpu(str(checkpoints / "checkpoint_last.pt"))
    finished = state["optimizer_history"][-1]["num_updates"]
    paths, end, number = {}, 0, 0
    for stage in state["cfg"]["model"]["stages"]:
        end += stage["updates"]
        if stage["kind"] == "encoder" and end <= finished:
            number += 1
            saved = list(checkpoints.glob(f"checkpoint_*_{end}.pt"))
            paths[f"iteration {number}"] = saved[0] if saved else checkpoints / "checkpoint_last.pt"
    return paths


def waveforms(work: Path, split: str) -> torch.Tensor:
    """All clips of a split (each has one second), B x S."""
    root, *lines = (work / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    clips = [soundfile.read(Path(root) / line.split("\t")[0], dtype="float32")[0] for line in lines]
    return torch.from_numpy(np.stack(clips))


def probe(work: Path, make_candidates) -> dict[str, float]:
    """Test accuracy by pooling; ``make_candidates(waveforms) -> {(pooling, name): features}``."""
    from bridle_fairseq.probe import Split, linear_probe

    labels = Split(*(np.load(work / f"{split}.labels.npy") for split in SPLITS))
    parts = [make_candidates(waveforms(work, split)) for split in SPLITS]
    accuracy = {}
    for pooling in dict.fromkeys(key[0] for key in parts[0]):
        candidates = {key: Split(*(part[key] for part in parts)) for key in parts[0] if key[0] == pooling}
        result = linear_probe(candidates, labels, STRENGTHS)
        accuracy[pooling] = result.score
    return accuracy


def encoder_candidates(model):
    """Features of the middle and the last two blocks, pooled both ways, 128 clips at a time."""
    from bridle_fairseq.features import encoder_features

    layers = {model.encoder.depth // 2, model.encoder.depth - 1, model.encoder.depth}

    def make(source: torch.Tensor):
        batches = [encoder_features(model, part, poolings=POOLINGS) for part in source.split(128)]
        return {key: torch.cat([b[key] for b in batches]).numpy() for key in batches[0] if key[1] in layers}

    return make


def log_mel_candidates(model):
    """Mean and deviation of the log-mel, and means of four segments of time."""
    from bridle_fairseq.nn.pooling import log_mel_deviation, log_mel_segments

    def make(source: torch.Tensor):
        fbank, padding = model.front_end.fbank(source)
        return {
            ("mean and deviation", 0): log_mel_deviation(fbank, padding).numpy(),
            ("four segments", 0): log_mel_segments(fbank, padding).numpy(),
        }

    return make


def load(path: Path):
    """The model of a checkpoint, in eval mode."""
    from fairseq.checkpoint_utils import load_model_ensemble_and_task

    models, _, _ = load_model_ensemble_and_task([str(path)])
    return models[0].eval()


def show(name: str, accuracy: dict[str, float]) -> None:
    """One row of the table."""
    print(f"{name:34}" + "".join(f"  {pooling} {value:.3f}" for pooling, value in accuracy.items()), flush=True)


def main() -> None:
    """Pretrain, probe, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each (1: two threads)")
    parser.add_argument("--overrides", nargs="*", default=[], help="further overrides of the configuration")
    args = parser.parse_args()
    work = args.work.resolve()
    prepare(args.data.resolve(), work)
    stats = subprocess.run(
        [str(Path(sys.executable).with_name("bridle")), "stats", str(work / "train.tsv")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    of_data = re.findall(r"model\.fbank_\w+=\S+", stats.stdout)
    threads = 1 if args.jobs > 1 else 2
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {
            (method, seed): pool.submit(pretrain, work, method, seed, of_data, threads, args.overrides)
            for seed in args.seeds
            for method in args.methods
        }
    evaluate(work, {key: job.result() for key, job in jobs.items()})


class Probes:
    """Results of probes, kept in a file: a second look at a checkpoint costs nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = json.loads(path.read_text()) if path.exists() else {}

    def result(self, name: str, of: Path, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The kept result of this checkpoint, else that of ``make()``."""
        state = of.stat()
        key = f"{name}, {of.name} of {state.st_size} bytes, {state.st_mtime_ns}"
        if key not in self.known:
            self.known[key] = make()
            self.path.write_text(json.dumps(self.known, indent=1))
        show(name, self.known[key])
        return self.known[key]


def evaluate(work: Path, runs: dict[tuple[str, int], Path]) -> None:
    """Probe all runs and print the table."""
    import bridle_fairseq

    bridle_fairseq.register()
    torch.set_num_threads(2)
    probes = Probes(work / "probes.json")
    rows: dict[str, list[dict[str, float]]] = {}
    seeds: set[int] = set()

    def untrained(path: Path, seed: int) -> dict[str, float]:
        model = load(path)
        torch.manual_seed(seed)
        return probe(work, encoder_candidates(type(model)(model.cfg).eval()))

    for (method, seed), checkpoints in runs.items():
        for iteration, path in iterations(checkpoints).items():
            if not rows:
                probes.result("log-mel", path, lambda path=path: probe(work, log_mel_candidates(load(path))))
            if seed not in seeds:
                seeds.add(seed)
                name = f"untrained, seed {seed}"
                found = probes.result(name, path, lambda path=path, seed=seed: untrained(path, seed))
                rows.setdefault("untrained", []).append(found)
            name = f"{method}, {iteration}"
            found = probes.result(
                f"{name}, seed {seed}", path, lambda path=path: probe(work, encoder_candidates(load(path)))
            )
            rows.setdefault(name, []).append(found)
    for name, results in rows.items():
        values = {pooling: [r[pooling] for r in results] for pooling in POOLINGS}
        print(
            f"{name:34}"
            + "".join(
                f"  {pooling} {statistics.mean(v):.3f} +- {statistics.stdev(v) if len(v) > 1 else 0:.3f}"
                for pooling, v in values.items()
            )
        )


if __name__ == "__main__":
    main()
