"""Codes as a language."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runs import decode, measure_statistics, read_table, train, write_manifest

SETS = ("arabic-speech-commands", "esc10")
SPLITS = {"train": "train", "valid": "val", "test": "test"}
FOLDS = {"1": "train", "2": "train", "3": "train", "4": "val", "5": "test"}
METHODS = {"rq": [], "vq": ["+variant=vq"]}  # 4 x 256 codes, 1 x 1024
PRETRAINING = (
    "task.roll=false",
    "model.stages=[{kind: encoder, updates: 400, lr: 1.0e-3, warmup_updates: 60}, "
    "{kind: tokenizer, updates: 200, lr: 5.0e-4, warmup_updates: 20}]",
)


def prepare(data: Path, work: Path) -> None:
    """Decode all sounds; manifests of each set's splits, and of both training splits together."""
    together: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in SETS:
        rows = read_table(data / name / "meta.csv")
        decode([data / name / "opus" / f"{row['name']}.opus" for row in rows], work / "sounds" / name)
        for split, called in SPLITS.items():
            part = [row for row in rows if (FOLDS[row["fold"]] if "fold" in row else row["split"]) == called]
            files = [f"{name}/{row['name']}.wav" for row in part]
            write_manifest(work / name / f"{split}.tsv", work / "sounds", files)
            together[split] += files
    for split in ("train", "valid"):
        write_manifest(work / "pretraining" / f"{split}.tsv", work / "sounds", together[split])


def pretrain(work: Path, method: str, seed: int, statistics: list[str], threads: int) -> Path:
    """An encoder and its tokenizer; their last checkpoint."""
    own = [f"common.seed={seed}", f"task.data={work / 'pretraining'}", *statistics]
    folder = train(work / f"{method}-{seed}", "pretraining/tiny", [*METHODS[method], *own, *PRETRAINING], threads)
    return folder / "checkpoint_last.pt"


def main() -> None:
    """Pretrain, then everything that is made of the codes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each (1: two threads)")
    args = parser.parse_args()
    work = args.work.resolve()
    prepare(args.data.resolve(), work)
    statistics = measure_statistics(work / "pretraining" / "train.tsv")
    threads = 1 if args.jobs > 1 else 2
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {method: pool.submit(pretrain, work, method, args.seed, statistics, threads) for method in args.methods}
        {method: job.result() for method, job in jobs.items()}


if __name__ == "__main__":
    main()
