"""Speech with transcripts by CTC: a few utterances learned by heart, and spoken digits as words beside a classifier.

    python benchmarks/ctc.py DATA --work WORK [--parts utterances digits] [--seeds 1]

DATA holds `speech` (flac/, meta.csv with name and text; files of 16 and 22.05 kHz) and `fsdd` (flac/, meta.csv with
name, digit, index and split), here or in a folder `audio`.

utterances: `tiny` is pretrained on the transcribed utterances and fine-tuned on them until it spells every word of the
same utterances. That checks the plumbing and says nothing of other speech. Printed: the first validation without an
error.

digits: `tiny` is pretrained on the training recordings without labels, then fine-tuned to spell "zero" to "nine" letter
by letter, and, with the same number of updates, to tell ten classes; both also from scratch. Recordings 6 to 14 of each
speaker and digit are for training, 5 chooses the checkpoint, 0 to 4 (the official test set) decide nothing. Printed:
word error rate on the test set, which of single words is the share not spelled right, and the classifier's error.

What is finished is not done again.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

from runs import ROOT, bridle, finetune, mean_and_deviation, measure_statistics, read_table, train, untrained

from bridle_fairseq.training.log import read_log, series

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
UTTERANCES = (
    *("model.patch_size=[8,64]", "dataset.batch_size=8", "dataset.validate_interval_updates=200"),
    "model.stages=[{kind: encoder, updates: 200, lr: 5.0e-4, warmup_updates: 20}]",
)
BY_HEART = (
    *("dataset.batch_size=8", "dataset.validate_interval=10", "dataset.validate_after_updates=150"),
    *("optimization.max_update=900", "lr_scheduler.warmup_updates=60", "task.gain=false"),
    "dataset.num_workers=0",
)
DIGITS = (
    *("dataset.batch_size=64", "dataset.validate_interval_updates=300"),
    "model.stages=[{kind: encoder, updates: 300, lr: 5.0e-4, warmup_updates: 30}]",
)
SPELLING = ("optimization.max_update=600", "lr_scheduler.warmup_updates=60", "dataset.batch_size=32")
TELLING = (*SPELLING, "task.roll=false")


def transcripts(*arguments: object) -> None:
    """Run manifests/transcripts.py."""
    subprocess.run([sys.executable, ROOT / "manifests" / "transcripts.py", *map(str, arguments)], check=True)


def learn_utterances(data: Path, work: Path, seed: int, threads: int) -> None:
    """Pretrain and fine-tune on the same utterances, and print when all words were right."""
    files = work / "manifests"
    options = ("--case", "upper", "--drop-punctuation", "--skip-empty", "--valid-percent", 0)
    transcripts(data / "flac", data / "meta.csv", "--dest", files, *options)
    for kind in ("tsv", "ltr"):
        shutil.copy(files / f"train.{kind}", files / f"valid.{kind}")
    own = [f"task.data={files}", f"common.seed={seed}"]
    statistics = measure_statistics(files / "train.tsv")
    pretrained = train(work / f"pretrained-{seed}", "pretraining/tiny", [*own, *UTTERANCES, *statistics], threads)
    checkpoint = f"model.checkpoint={pretrained / 'checkpoint_last.pt'}"
    best = train(work / f"by-heart-{seed}", "finetuning/tiny", [*own, *BY_HEART, checkpoint], threads, "speech")
    rates = word_error_rates(work / f"by-heart-{seed}" / "stdout.log")
    print("updates  word error rate")
    for update, rate in rates.items():
        print(f"{update:7}  {rate:.4f}")
    print(f"first without an error: {next((update for update, rate in rates.items() if rate == 0), 'none')}")
    print(bridle("evaluate", best / "checkpoint_best.pt", files / "train.tsv", "--out", work / "evaluation"))


def word_error_rates(log: Path) -> dict[int, float]:
    """The validations of a run: updates -> word error rate."""
    return dict(series(read_log(log), "wer", "valid"))


def prepare_digits(data: Path, work: Path) -> tuple[Path, Path]:
    """Folders of manifests with transcripts and with classes."""
    table = work / "digits.csv"
    work.mkdir(parents=True, exist_ok=True)
    with open(table, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "transcript", "split"])
        for row in read_table(data / "meta.csv"):
            split = "valid" if row["index"] == "5" else row["split"]
            writer.writerow([f"{row['name']}.flac", WORDS[int(row["digit"])], split])
    spelled, told = work / "spelled", work / "told"
    transcripts(data / "flac", table, "--dest", spelled)
    bridle("manifest", data / "flac", "--labels", table, "--label-column", "transcript", "--dest", told)
    return spelled, told


def word_error_rate(checkpoint: Path, manifest: Path, folder: Path) -> float:
    """By `bridle evaluate`."""
    printed = bridle("evaluate", checkpoint, manifest, "--out", folder)
    return float(re.search(r"^wer +([\d.]+)", printed, re.MULTILINE)[1])


def learn_digits(data: Path, work: Path, seeds: list[int], threads: int) -> None:
    """Word error rate and classification error on the test recordings, pretrained and from scratch."""
    import bridle_fairseq

    bridle_fairseq.register()
    spelled, told = prepare_digits(data, work)
    rows: dict[str, list[float]] = {}
    for seed in seeds:
        common = [f"common.seed={seed}"]
        more = [*common, *DIGITS, f"task.data={spelled}", *measure_statistics(spelled / "train.tsv")]
        pretrained = train(work / f"pretrained-{seed}", "pretraining/tiny", more, threads) / "checkpoint_last.pt"
        scratch = untrained(work / f"untrained-{seed}", pretrained, seed)
        for name, start in (("pretrained", pretrained), ("from scratch", scratch)):
            folder = work / f"spelling-{name.replace(' ', '-')}-{seed}"
            own = [*common, *SPELLING, f"task.data={spelled}", f"model.checkpoint={start}"]
            best = train(folder, "finetuning/tiny", own, threads, "speech") / "checkpoint_best.pt"
            rate = word_error_rate(best, spelled / "test.tsv", folder / "evaluation")
            rows.setdefault(f"spelled, {name}", []).append(rate)
            folder = work / f"telling-{name.replace(' ', '-')}-{seed}"
            error = 1 - finetune(folder, start, told, [*common, *TELLING], threads)
            rows.setdefault(f"classified, {name}", []).append(error)
            print(f"seed {seed}, {name}: word error rate {rate:.3f}, classifier's error {error:.3f}", flush=True)
    for name, values in rows.items():
        print(f"{name:26}  {mean_and_deviation(values)}")


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=["utterances", "digits"], default=["utterances", "digits"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    work = args.work.resolve()

    def of(name: str) -> Path:
        places = [args.data.resolve() / name, args.data.resolve() / "audio" / name]
        return next((place for place in places if place.is_dir()), places[0])

    if "utterances" in args.parts:
        learn_utterances(of("speech"), work / "utterances", args.seeds[0], args.threads)
    if "digits" in args.parts:
        learn_digits(of("fsdd"), work / "digits", args.seeds, args.threads)


if __name__ == "__main__":
    main()
