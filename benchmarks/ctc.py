"""Speech recognition with CTC: overfitting a few utterances, and spoken digits compared with a classifier.

    python benchmarks/ctc.py DATA --work WORK [--parts utterances digits] [--seeds 1]

DATA or DATA/audio holds `speech` (flac/, meta.csv with name and text; files of 16 and 22.05 kHz) and `fsdd` (flac/,
meta.csv with name, digit, index and split).

utterances: `tiny` is pretrained on the transcribed utterances and fine-tuned on them until it transcribes every word of
the same utterances. This is a sanity check and does not measure generalization. Prints the word error rate of each
validation and the first update without an error.

digits: `tiny` is pretrained on the training recordings without labels. It is then fine-tuned with CTC to spell "zero"
to "nine" in letters and, with the same number of updates, as a classifier of ten classes. Both are also trained from
scratch. Of each speaker and digit, recordings 6 to 14 are for training and 5 for choosing the checkpoint; 0 to 4 are
the official test set, which is used once. Prints the word error rate on the test set (for single words, the fraction of
misspelled words) and the error of the classifier.

Finished runs are not repeated.
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
OVERFITTING = (
    *("dataset.batch_size=8", "dataset.validate_interval=10", "dataset.validate_after_updates=150"),
    *("optimization.max_update=900", "lr_scheduler.warmup_updates=60", "task.gain=false"),
    "dataset.num_workers=0",
)
DIGITS = (
    *("dataset.batch_size=64", "dataset.validate_interval_updates=300"),
    "model.stages=[{kind: encoder, updates: 300, lr: 5.0e-4, warmup_updates: 30}]",
)
CTC = ("optimization.max_update=600", "lr_scheduler.warmup_updates=60", "dataset.batch_size=32")
CLASSIFICATION = (*CTC, "task.roll=false")


def write_transcripts(*arguments: object) -> None:
    """Run manifests/transcripts.py."""
    subprocess.run([sys.executable, ROOT / "manifests" / "transcripts.py", *map(str, arguments)], check=True)


def overfit_utterances(data: Path, work: Path, seed: int, threads: int) -> None:
    """Pretrain and fine-tune on the same utterances, and print when the word error rate reaches 0."""
    files = work / "manifests"
    options = ("--case", "upper", "--drop-punctuation", "--skip-empty", "--valid-percent", 0)
    write_transcripts(data / "flac", data / "meta.csv", "--dest", files, *options)
    for kind in ("tsv", "ltr"):
        shutil.copy(files / f"train.{kind}", files / f"valid.{kind}")
    own = [f"task.data={files}", f"common.seed={seed}"]
    statistics = measure_statistics(files / "train.tsv")
    pretrained = train(work / f"pretrained-{seed}", "pretraining/tiny", [*own, *UTTERANCES, *statistics], threads)
    checkpoint = f"model.checkpoint={pretrained / 'checkpoint_last.pt'}"
    best = train(work / f"overfit-{seed}", "finetuning/tiny", [*own, *OVERFITTING, checkpoint], threads, "speech")
    rates = word_error_rates(work / f"overfit-{seed}" / "stdout.log")
    print("updates  word error rate")
    for update, rate in rates.items():
        print(f"{update:7}  {rate:.4f}")
    print(f"first without an error: {next((update for update, rate in rates.items() if rate == 0), 'none')}")
    print(bridle("evaluate", best / "checkpoint_best.pt", files / "train.tsv", "--out", work / "evaluation"))


def word_error_rates(log: Path) -> dict[int, float]:
    """Update -> word error rate of each validation of a run."""
    return dict(series(read_log(log), "wer", "valid"))


def prepare_digits(data: Path, work: Path) -> tuple[Path, Path]:
    """Write manifests with transcripts and with classes; return their folders."""
    table = work / "digits.csv"
    work.mkdir(parents=True, exist_ok=True)
    with open(table, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "transcript", "split"])
        for row in read_table(data / "meta.csv"):
            split = "valid" if row["index"] == "5" else row["split"]
            writer.writerow([f"{row['name']}.flac", WORDS[int(row["digit"])], split])
    transcribed, labelled = work / "transcribed", work / "labelled"
    write_transcripts(data / "flac", table, "--dest", transcribed)
    bridle("manifest", data / "flac", "--labels", table, "--label-column", "transcript", "--dest", labelled)
    return transcribed, labelled


def word_error_rate(checkpoint: Path, manifest: Path, folder: Path) -> float:
    """The word error rate that `bridle evaluate` prints."""
    printed = bridle("evaluate", checkpoint, manifest, "--out", folder)
    return float(re.search(r"^wer +([\d.]+)", printed, re.MULTILINE)[1])


def compare_digits(data: Path, work: Path, seeds: list[int], threads: int) -> None:
    """Print word error rate and classification error on the test recordings, pretrained and from scratch."""
    import bridle_fairseq

    bridle_fairseq.register()
    transcribed, labelled = prepare_digits(data, work)
    rows: dict[str, list[float]] = {}
    for seed in seeds:
        common = [f"common.seed={seed}"]
        own = [*common, *DIGITS, f"task.data={transcribed}", *measure_statistics(transcribed / "train.tsv")]
        pretrained = train(work / f"pretrained-{seed}", "pretraining/tiny", own, threads) / "checkpoint_last.pt"
        scratch = untrained(work / f"untrained-{seed}", pretrained, seed)
        for name, start in (("pretrained", pretrained), ("from scratch", scratch)):
            folder = work / f"ctc-{name.replace(' ', '-')}-{seed}"
            own = [*common, *CTC, f"task.data={transcribed}", f"model.checkpoint={start}"]
            best = train(folder, "finetuning/tiny", own, threads, "speech") / "checkpoint_best.pt"
            rate = word_error_rate(best, transcribed / "test.tsv", folder / "evaluation")
            rows.setdefault(f"CTC, {name}", []).append(rate)
            folder = work / f"classifier-{name.replace(' ', '-')}-{seed}"
            error = 1 - finetune(folder, start, labelled, [*common, *CLASSIFICATION], threads)
            rows.setdefault(f"classifier, {name}", []).append(error)
            print(f"seed {seed}, {name}: word error rate {rate:.3f}, classifier error {error:.3f}", flush=True)
    for name, values in rows.items():
        print(f"{name:26}  {mean_and_deviation(values)}")


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=["utterances", "digits"], default=["utterances", "digits"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    work = args.work.resolve()

    def find_set(name: str) -> Path:
        folders = [args.data.resolve() / name, args.data.resolve() / "audio" / name]
        return next((folder for folder in folders if folder.is_dir()), folders[0])

    if "utterances" in args.parts:
        overfit_utterances(find_set("speech"), work / "utterances", args.seeds[0], args.threads)
    if "digits" in args.parts:
        compare_digits(find_set("fsdd"), work / "digits", args.seeds, args.threads)


if __name__ == "__main__":
    main()
