"""What pretraining is worth on photographs of clothes: 10 classes, 100 images each to learn from, 24 to test.

    python benchmarks/clothing.py DATA --work WORK [--seed 1] [--updates 600]

DATA is a folder with train/CLASS/*.jpg and test/CLASS/*.jpg, such as clothing-dataset-small. An encoder (`tiny`) is
pretrained without labels on all of train; then `bridle probe` compares its frozen features with those of the same
encoder untrained, with a histogram of colours and one of edges. Choices are made on a random 15 % of train.

A run that was stopped goes on. Results: WORK/probe/probe.csv.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

from runs import ROOT, command

LABELLED = ("--class-folders", "--valid-percent", "0.15")
OVERRIDES = ("common.cpu=true", "checkpoint.save_interval_updates=200", "dataset.validate_interval_updates=200")


def bridle(*arguments: object) -> str:
    """Run a subcommand; what it printed."""
    done = subprocess.run([command("bridle"), *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def prepare(data: Path, work: Path, seed: int) -> list[str]:
    """Write the manifests; mean and deviation of the pixels, as overrides."""
    for name, source, options in (("all", data / "train", ("--valid-percent", "0.05")), ("labelled", data, LABELLED)):
        bridle("manifest", source, "--modality", "image", "--dest", work / name, "--seed", seed, *options)
    said = bridle("stats", work / "all" / "train.tsv", "--modality", "image", "--image-size", "64")
    return re.findall(r"model\.pixel_\w+=\S+", said)


def main() -> None:
    """Pretrain, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, default=600)
    args = parser.parse_args()
    data, work = args.data.resolve(), args.work.resolve()
    statistics = prepare(data, work, args.seed)
    pretrained, warmup = work / "pretrained", args.updates // 10
    train = [
        command("fairseq-hydra-train"),
        *("--config-dir", str(ROOT / "examples/images/config/pretraining"), "--config-name", "tiny"),
        f"common.user_dir={ROOT / 'bridle_fairseq'}",
        f"common.seed={args.seed}",
        f"task.data={work / 'all'}",
        *statistics,
        *OVERRIDES,
        f"model.stages=[{{kind: encoder, updates: {args.updates}, lr: 1.0e-3, warmup_updates: {warmup}}}]",
        f"checkpoint.save_dir={pretrained}",
        f"hydra.run.dir={pretrained}",
    ]
    with open(work / "stdout.log", "a", encoding="utf-8") as log:
        subprocess.run(train, stdout=log, stderr=log, check=True)
    options = ("--out", work / "probe", "--seed", args.seed)
    print(bridle("probe", pretrained / "checkpoint_last.pt", work / "labelled", *options))


if __name__ == "__main__":
    main()
