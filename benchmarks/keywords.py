"""Downstream accuracy of pretraining with `small`: a linear probe on spoken keywords, with unseen test speakers.

    python benchmarks/keywords.py DATA --work WORK [--seeds 1 2 3] [--methods rq vq levels-2 levels-8] [--jobs 2]
    python benchmarks/keywords.py DATA --work WORK --methods rq --finetune

DATA is the folder of Arabic Speech Commands (meta.csv with name, keyword and split; sound files in opus/). Pretraining
uses the train split without labels. The probe (logistic regression) is fitted on the train split; layer and
regularization are chosen on the validation split; the test split is used once. Printed are the encoder after
iterations 1 and 2 of each method and seed, the untrained encoder, and log-mel statistics. With --finetune, the encoder
after iteration 1 is fine-tuned instead and compared with training from scratch; the checkpoint that is best on the
validation split is tested once.

All methods have 1024 codes in total: 4 x 256 (rq), 1 x 1024 (vq), 2 x 512, 8 x 128.

Stopped runs are resumed, and results of probes are kept in WORK/probes.json. Sounds are decoded once into WORK, so that
Opus is not decoded in every epoch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch
from runs import (
    decode,
    finetune,
    mean_and_deviation,
    measure_statistics,
    read_table,
    train,
    untrained,
    write_labelled,
)

SPLITS = {"train": "train", "valid": "val", "test": "test"}
METHODS = {
    "rq": [],
    "vq": ["+variant=vq"],
    "levels-2": ["model.num_codebooks=2", "model.codebook_size=512"],
    "levels-8": ["model.num_codebooks=8", "model.codebook_size=128"],
}
FINETUNING = ("task.roll=false", "optimization.max_update=600", "lr_scheduler.warmup_updates=60")
POOLINGS = ("mean", "frequency")
STRENGTHS = (0.003, 0.01, 0.03, 0.1)


def prepare(data: Path, work: Path, kind: str = "wav") -> None:
    """Convert the sounds to files of this kind, and write manifest and labels of each split."""
    rows = read_table(data / "meta.csv")
    decode([data / "opus" / f"{row['name']}.opus" for row in rows], work / "sounds", kind)
    splits = {
        split: [(f"{row['name']}.{kind}", row["keyword"]) for row in rows if row["split"] == name]
        for split, name in SPLITS.items()
    }
    classes = write_labelled(work, work / "sounds", splits)
    for split, labelled in splits.items():
        np.save(work / f"{split}.labels.npy", [classes.index(label) for _, label in labelled])


def pretrain(work: Path, method: str, seed: int, overrides: list[str], threads: int) -> Path:
    """One run of pretraining; the folder of its checkpoints."""
    own = [f"common.seed={seed}", f"task.data={work}", "task.roll=false", "checkpoint.keep_interval_updates=-1"]
    return train(work / f"{method}-{seed}", "pretraining/small", [*METHODS[method], *own, *overrides], threads)


def iterations(checkpoints: Path) -> dict[str, Path]:
    """The checkpoint at the end of each encoder stage."""
    from bridle_fairseq.models.checkpoints import read_checkpoint

    last = read_checkpoint(str(checkpoints / "checkpoint_last.pt"), ("bridle",))
    paths, end, number = {}, 0, 0
    for stage in last.settings.schedule().stages:
        end += stage.updates
        if stage.kind == "encoder" and end <= last.updates:
            number += 1
            saved = list(checkpoints.glob(f"checkpoint_*_{end}.pt"))
            paths[f"iteration {number}"] = saved[0] if saved else checkpoints / "checkpoint_last.pt"
    return paths


def waveforms(work: Path, split: str) -> torch.Tensor:
    """All clips of a split, of one second each: B x S."""
    root, *lines = (work / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    clips = [soundfile.read(Path(root) / line.split("\t")[0], dtype="float32")[0] for line in lines]
    return torch.from_numpy(np.stack(clips))


def probe(work: Path, make_candidates) -> dict[str, float]:
    """Test accuracy by pooling; ``make_candidates(waveforms) -> {(pooling, name): features}``."""
    from bridle_fairseq.evaluation.probe import Split, linear_probe

    labels = Split(*(np.load(work / f"{split}.labels.npy") for split in SPLITS))
    features = [make_candidates(waveforms(work, split)) for split in SPLITS]
    accuracy = {}
    for pooling in dict.fromkeys(key[0] for key in features[0]):
        candidates = {key: Split(*(split[key] for split in features)) for key in features[0] if key[0] == pooling}
        result = linear_probe(candidates, labels, STRENGTHS)
        accuracy[pooling] = result.score
    return accuracy


def encoder_candidates(model):
    """Features of the middle and the last two blocks, pooled both ways, 128 clips at a time."""
    from bridle_fairseq.inference.extractors import encoder_features

    layers = {model.encoder.depth // 2, model.encoder.depth - 1, model.encoder.depth}

    def make(source: torch.Tensor):
        batches = [encoder_features(model, batch, poolings=POOLINGS) for batch in source.split(128)]
        return {key: torch.cat([b[key] for b in batches]).numpy() for key in batches[0] if key[1] in layers}

    return make


def log_mel_candidates(model):
    """Mean and deviation of the log-mel, and its means in four time segments."""
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
    from bridle_fairseq.models.checkpoints import load_model

    return load_model(str(path))[0]


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
    parser.add_argument("--finetune", action="store_true", help="fine-tune instead of probing")
    parser.add_argument("--overrides", nargs="*", default=[], help="further overrides of the configuration")
    args = parser.parse_args()
    work = args.work.resolve()
    prepare(args.data.resolve(), work)
    overrides = measure_statistics(work / "train.tsv") + args.overrides
    threads = 1 if args.jobs > 1 else 2
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {
            (method, seed): pool.submit(pretrain, work, method, seed, overrides, threads)
            for seed in args.seeds
            for method in args.methods
        }
        runs = {key: job.result() for key, job in jobs.items()}
        if args.finetune:
            compare_finetuned(work, runs, threads, pool)
            return
    evaluate(work, runs)


def finetune_one(work: Path, name: str, checkpoint: Path, seed: int, threads: int, from_scratch: bool) -> float:
    """Test accuracy after fine-tuning with ``tiny``, or after training from scratch."""
    folder = work / f"{name}-{seed}"
    start = untrained(folder, checkpoint, seed) if from_scratch else checkpoint
    return finetune(folder, start, work, [f"common.seed={seed}", *FINETUNING], threads)


def compare_finetuned(work: Path, runs: dict[tuple[str, int], Path], threads: int, pool: ThreadPoolExecutor) -> None:
    """Fine-tune the encoders after iteration 1 and untrained ones, and print the table."""
    import bridle_fairseq

    bridle_fairseq.register()  # before threads import its modules
    jobs: dict[str, list] = {}
    for (method, seed), checkpoints in runs.items():
        path = iterations(checkpoints)["iteration 1"]
        for name, from_scratch in ((f"{method}, fine-tuned", False), (f"{method}, from scratch", True)):
            folder = name.replace(", ", "-").replace(" ", "-")
            jobs.setdefault(name, []).append(pool.submit(finetune_one, work, folder, path, seed, threads, from_scratch))
    for name, of_seeds in jobs.items():
        values = [job.result() for job in of_seeds]
        listed = " ".join(f"{value:.3f}" for value in values)
        print(f"{name:34}  {mean_and_deviation(values)}  ({listed})", flush=True)


class Probes:
    """Results of probes, kept in a file so that a checkpoint is probed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = json.loads(path.read_text()) if path.exists() else {}

    def result(self, name: str, of: Path, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The stored result of this checkpoint, else that of ``make()``."""
        state = of.stat()
        key = f"{name}, {of.name} of {state.st_size} bytes, {state.st_mtime_ns}"
        if key not in self.known:
            self.known[key] = make()
            self.path.write_text(json.dumps(self.known, indent=1))
        show(name, self.known[key])
        return self.known[key]

    def of_encoder(self, name: str, path: Path, work: Path) -> dict[str, float]:
        """:meth:`result` of a probe of the checkpoint's encoder on the clips of ``work``."""
        return self.result(name, path, lambda: probe(work, encoder_candidates(load(path))))


def evaluate(work: Path, runs: dict[tuple[str, int], Path]) -> None:
    """Probe all runs and print the table."""
    torch.set_num_threads(2)
    probes = Probes(work / "probes.json")
    rows: dict[str, list[dict[str, float]]] = {}
    seeds: set[int] = set()

    def untrained_probe(path: Path, seed: int) -> dict[str, float]:
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
                accuracy = probes.result(name, path, lambda path=path, seed=seed: untrained_probe(path, seed))
                rows.setdefault("untrained", []).append(accuracy)
            name = f"{method}, {iteration}"
            rows.setdefault(name, []).append(probes.of_encoder(f"{name}, seed {seed}", path, work))
    show_means(rows)


def show_means(rows: Mapping[str, list[dict[str, float]]]) -> None:
    """Print mean and deviation over seeds of each row."""
    for name, results in rows.items():
        values = {pooling: [r[pooling] for r in results] for pooling in POOLINGS}
        print(f"{name:34}" + "".join(f"  {pooling} {mean_and_deviation(v)}" for pooling, v in values.items()))


if __name__ == "__main__":
    main()
