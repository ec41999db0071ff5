"""Effect of pretraining on environmental sounds: cross-validation on ESC-10, without the test fold in pretraining.

    python benchmarks/esc10.py DATA --work WORK [--seed 1] [--folds 1 2 3 4 5] [--jobs 2]

DATA holds three sets: esc10 and arabic-speech-commands (meta.csv, opus/) and fsdd (meta.csv, flac/). For each fold, an
encoder is pretrained without labels on the other four folds and on the training splits of the two speech sets. Then
`bridle crossval` compares on the folds: log-mel statistics; the frozen encoder, pretrained and untrained; the
fine-tuned encoder, pretrained and from scratch. Choices are made on a tenth of the training folds.

Finished runs are not repeated. Results: WORK/{logmel,probe,probe-untrained,finetune,scratch}/crossval.csv.
"""

from __future__ import annotations

import argparse
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runs import command, decode, measure_statistics, read_table, train, write_manifest

SETS = {"esc10": "opus", "arabic-speech-commands": "opus", "fsdd": "flac"}
UPDATES = 1600
PRETRAINING = (
    "task.max_sample_size=80000",
    "dataset.batch_size=64",
    "dataset.max_tokens=960000",  # 60 s of sound per update
    "model.patch_size=[16,16]",
    f"model.stages=[{{kind: encoder, updates: {UPDATES}, lr: 1.0e-3, warmup_updates: 150}}]",
    "checkpoint.save_interval_updates=400",
    "dataset.validate_interval_updates=400",
)
FINETUNING = (
    "task.max_sample_size=80000",
    "dataset.batch_size=16",
    "optimization.max_update=300",  # about 17 epochs
    "lr_scheduler.warmup_updates=30",
    "criterion.mixup=0.5",
    "model.pooling=frequency",
)


def prepare(data: Path, work: Path) -> list[str]:
    """Decode all sounds, write the manifests for pretraining on each fold, and return the names of the folds."""
    tables = {name: read_table(data / name / "meta.csv") for name in SETS}
    sounds = work / "sounds"
    for name, kind in SETS.items():
        decode([data / name / kind / f"{row['name']}.{kind}" for row in tables[name]], sounds / name)

    def files(name: str, split: str) -> list[str]:
        return [f"{name}/{row['name']}.wav" for row in tables[name] if row["split"] == split]

    speech = files("arabic-speech-commands", "train") + files("fsdd", "train")
    folds = sorted({row["fold"] for row in tables["esc10"]})
    for fold in folds:
        others = [f"esc10/{row['name']}.wav" for row in tables["esc10"] if row["fold"] != fold]
        folder = work / "pretraining" / f"fold{fold}"
        write_manifest(folder / "train.tsv", sounds, others + speech)
        write_manifest(folder / "valid.tsv", sounds, files("arabic-speech-commands", "val")[::4])
    return folds


def pretrain(work: Path, fold: str, seed: int, threads: int) -> Path:
    """Pretrain the encoder of a fold; return the folder of its checkpoints."""
    folder = work / "pretraining" / f"fold{fold}"
    own = [f"common.seed={seed}", f"task.data={folder}", *measure_statistics(folder / "train.tsv")]
    checkpoints = train(folder, "pretraining/small", [*PRETRAINING, *own], threads)
    print(f"fold {fold}: pretrained", flush=True)
    return checkpoints


def crossvalidate(data: Path, work: Path, seed: int, folds: list[str]) -> None:
    """Run all comparisons in turn."""
    checkpoint = str(work / "pretraining" / "fold{fold}" / "checkpoints" / "checkpoint_last.pt")
    probe = ["--checkpoint", checkpoint, "--layers", "3,4,5,6", "--chunk-seconds", "5"]
    finetune = ["--mode", "finetune", "--checkpoint", checkpoint]
    overrides = ["--", f"common.seed={seed}", *FINETUNING]
    comparisons = {
        "logmel": ["--mode", "logmel"],
        "probe": probe,
        "probe-untrained": [*probe, "--untrained"],
        "finetune": [*finetune, *overrides],
        "scratch": [*finetune, "--untrained", *overrides],
    }
    for name, arguments in comparisons.items():
        print(f"\n{name}", flush=True)
        table, sounds = str(data / "esc10" / "meta.csv"), str(work / "sounds" / "esc10")
        own = ["--out", str(work / name), "--seed", str(seed), "--folds", *folds]
        subprocess.run([command("bridle"), "crossval", table, sounds, *own, *arguments], check=True)


def main() -> None:
    """Pretrain on each fold, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folds", nargs="+", default=[], help="only these folds")
    parser.add_argument("--jobs", type=int, default=2, help="parallel runs with one thread each (1: two threads)")
    args = parser.parse_args()
    data, work = args.data.resolve(), args.work.resolve()
    folds = args.folds or prepare(data, work)
    if args.folds:
        prepare(data, work)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda fold: pretrain(work, fold, args.seed, 1 if args.jobs > 1 else 2), folds))
    crossvalidate(data, work, args.seed, folds)


if __name__ == "__main__":
    main()
