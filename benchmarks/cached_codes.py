"""What codes made once save, and what they cost: the encoder stage of iteration 2, beside one that runs the tokenizer.

    python benchmarks/cached_codes.py speed DATA --work WORK [--rounds 5]
    python benchmarks/cached_codes.py accuracy DATA --work WORK [--seeds 1 2 3]

DATA and the split are those of keywords.py; the recipe is `sparse` of recipes.py. Each seed trains its encoder (600
updates) and its tokenizer (200) once and makes the codes of both splits by `bridle tokenize`. From there the second
encoder stage (400 updates) goes on in four ways: with the tokenizer run in every update (live) or from these codes
(cached), and with the sounds as they are or shifted in time (rolled): live codes are then those of the shifted sound,
cached ones those of the sound as it was, shifted along.

speed: a stage of 40 updates, in turns; clips a second by the log's clock. accuracy: the probe of keywords.py.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keywords import Probes, prepare, show_means
from recipes import RECIPES, SETTLING, STAGES
from runs import bridle, measure_statistics, train, update_times

CONFIG, SETTINGS = RECIPES["sparse"]
BEFORE = sum(updates for _, updates in STAGES[:2])
SHORT = 40
WAYS = {
    "live": ["task.roll=false"],
    "cached": ["task.roll=false", "task.codes={codes}"],
    "live, rolled": ["task.roll=true"],
    "cached, rolled": ["task.roll=true", "task.codes={codes}"],
}


def first_iteration(work: Path, seed: int, overrides: list[str], threads: int) -> tuple[Path, Path]:
    """Checkpoint at the end of the tokenizer's stage, and the folder of its codes."""
    folder = work / f"first-iteration-{seed}"
    until = [f"common.seed={seed}", "task.roll=false", f"optimization.max_update={BEFORE}"]
    checkpoint = train(folder, f"pretraining/{CONFIG}", [*SETTINGS, *overrides, *until], threads) / "checkpoint_last.pt"
    for split in ("train", "valid"):
        codes = ["--out", folder / "codes", "--device", "cpu"]
        bridle("tokenize", checkpoint, work / f"{split}.tsv", *codes, threads=threads)
    return checkpoint, folder / "codes"


def second_iteration(
    folder: Path, way: str, seed: int, start: tuple[Path, Path], overrides: list[str], threads: int
) -> Path:
    """The encoder's second stage, from a copy of the checkpoint; the folder of its own checkpoints."""
    checkpoint, codes = start
    copy = folder / "checkpoints" / "checkpoint_last.pt"
    if not copy.exists():
        copy.parent.mkdir(parents=True)
        shutil.copyfile(checkpoint, copy)
    own = [f"common.seed={seed}", *(setting.format(codes=codes) for setting in WAYS[way])]
    return train(folder, f"pretraining/{CONFIG}", [*SETTINGS, *overrides, *own], threads)


def speed(work: Path, args: argparse.Namespace, overrides: list[str]) -> None:
    """All ways in turn, several times, one thread."""
    start = first_iteration(work, args.seeds[0], overrides, threads=2)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    end = [f"optimization.max_update={BEFORE + SHORT}", "common.log_interval=1", "checkpoint.no_save=true"]
    for _ in range(args.rounds):
        for way, values in rates.items():
            folder = work / f"speed-{way.replace(', ', '-')}"
            shutil.rmtree(folder, ignore_errors=True)
            own = [*overrides, *end, "dataset.disable_validation=true"]
            second_iteration(folder, way, args.seeds[0], start, own, threads=1)
            times = update_times(folder)[SETTLING:]
            values.append(32 * (len(times) - 1) / (times[-1] - times[0]))
    reference = statistics.median(rates["live"])
    for way, values in rates.items():
        median = statistics.median(values)
        print(f"{way:16} {median:7.1f} clips/s ({min(values):.1f} to {max(values):.1f})  x{median / reference:.2f}")


def accuracy(work: Path, args: argparse.Namespace, overrides: list[str]) -> None:
    """All ways from the same start, for every seed."""
    import bridle_fairseq

    bridle_fairseq.register()
    threads = 1 if args.jobs > 1 else 2
    with ThreadPoolExecutor(args.jobs) as pool:
        started = list(pool.map(lambda seed: first_iteration(work, seed, overrides, threads), args.seeds))
        jobs = {
            (way, seed): pool.submit(
                second_iteration, work / f"{way.replace(', ', '-')}-{seed}", way, seed, start, overrides, threads
            )
            for seed, start in zip(args.seeds, started, strict=True)
            for way in WAYS
        }
        runs = {key: job.result() / "checkpoint_last.pt" for key, job in jobs.items()}
    probes, rows = Probes(work / "probes.json"), {}
    for (way, seed), path in runs.items():
        rows.setdefault(way, []).append(probes.of_encoder(f"{way}, seed {seed}", path, work))
    show_means(rows)


def main() -> None:
    """Prepare the sounds, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "accuracy"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each (1: two threads)")
    args = parser.parse_args()
    work = args.work.resolve()
    prepare(args.data.resolve(), work, "flac")
    overrides = [*measure_statistics(work / "train.tsv"), f"task.data={work}"]
    (speed if args.what == "speed" else accuracy)(work, args, overrides)


if __name__ == "__main__":
    main()
