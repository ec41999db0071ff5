"""Speed and accuracy of training from cached codes, compared with a live tokenizer, in the second encoder stage.

    python benchmarks/cached_codes.py speed DATA --work WORK [--rounds 5]
    python benchmarks/cached_codes.py accuracy DATA --work WORK [--seeds 1 2 3]

DATA and the split are those of keywords.py; the recipe is `sparse` of recipes.py. Each seed trains its encoder (600
updates) and its tokenizer (200 updates) once and makes the codes of both splits with `bridle tokenize`. The second
encoder stage (400 updates) then continues in four ways: with the tokenizer run in every update (live) or with these
codes (cached), each with the original sounds or with sounds shifted in time (rolled). Live codes are those of the
shifted clip. Cached codes are those of the original clip, shifted by the same amount.

speed: a stage of 40 updates, in turn; clips per second from the timestamps of the log. accuracy: the probe of
keywords.py.
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
FIRST_UPDATES = sum(updates for _, updates in STAGES[:2])
SPEED_UPDATES = 40
VARIANTS = {
    "live": ["task.roll=false"],
    "cached": ["task.roll=false", "task.codes={codes}"],
    "live, rolled": ["task.roll=true"],
    "cached, rolled": ["task.roll=true", "task.codes={codes}"],
}


def first_iteration(work: Path, seed: int, overrides: list[str], threads: int) -> tuple[Path, Path]:
    """The checkpoint at the end of the tokenizer stage, and the folder of its codes."""
    folder = work / f"first-iteration-{seed}"
    settings = [f"common.seed={seed}", "task.roll=false", f"optimization.max_update={FIRST_UPDATES}"]
    checkpoint = (
        train(folder, f"pretraining/{CONFIG}", [*SETTINGS, *overrides, *settings], threads) / "checkpoint_last.pt"
    )
    for split in ("train", "valid"):
        codes = ["--out", folder / "codes", "--device", "cpu"]
        bridle("tokenize", checkpoint, work / f"{split}.tsv", *codes, threads=threads)
    return checkpoint, folder / "codes"


def second_iteration(
    folder: Path, variant: str, seed: int, start: tuple[Path, Path], overrides: list[str], threads: int
) -> Path:
    """Run the second encoder stage from a copy of the checkpoint; return the folder of its checkpoints."""
    checkpoint, codes = start
    copy = folder / "checkpoints" / "checkpoint_last.pt"
    if not copy.exists():
        copy.parent.mkdir(parents=True)
        shutil.copyfile(checkpoint, copy)
    own = [f"common.seed={seed}", *(setting.format(codes=codes) for setting in VARIANTS[variant])]
    return train(folder, f"pretraining/{CONFIG}", [*SETTINGS, *overrides, *own], threads)


def speed(work: Path, args: argparse.Namespace, overrides: list[str]) -> None:
    """Time all variants in turn, with one thread."""
    start = first_iteration(work, args.seeds[0], overrides, threads=2)
    rates: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    end = [
        f"optimization.max_update={FIRST_UPDATES + SPEED_UPDATES}",
        "common.log_interval=1",
        "checkpoint.no_save=true",
    ]
    for _ in range(args.rounds):
        for variant, values in rates.items():
            folder = work / f"speed-{variant.replace(', ', '-')}"
            shutil.rmtree(folder, ignore_errors=True)
            own = [*overrides, *end, "dataset.disable_validation=true"]
            second_iteration(folder, variant, args.seeds[0], start, own, threads=1)
            times = update_times(folder)[SETTLING:]
            values.append(32 * (len(times) - 1) / (times[-1] - times[0]))
    reference = statistics.median(rates["live"])
    for variant, values in rates.items():
        median = statistics.median(values)
        print(f"{variant:16} {median:7.1f} clips/s ({min(values):.1f} to {max(values):.1f})  x{median / reference:.2f}")


def accuracy(work: Path, args: argparse.Namespace, overrides: list[str]) -> None:
    """Probe all variants, trained from the same checkpoint, for each seed."""
    import bridle_fairseq

    bridle_fairseq.register()
    threads = 1 if args.jobs > 1 else 2
    with ThreadPoolExecutor(args.jobs) as pool:
        starts = list(pool.map(lambda seed: first_iteration(work, seed, overrides, threads), args.seeds))
        jobs = {
            (variant, seed): pool.submit(
                second_iteration,
                work / f"{variant.replace(', ', '-')}-{seed}",
                variant,
                seed,
                start,
                overrides,
                threads,
            )
            for seed, start in zip(args.seeds, starts, strict=True)
            for variant in VARIANTS
        }
        runs = {key: job.result() / "checkpoint_last.pt" for key, job in jobs.items()}
    probes, rows = Probes(work / "probes.json"), {}
    for (variant, seed), path in runs.items():
        rows.setdefault(variant, []).append(probes.of_encoder(f"{variant}, seed {seed}", path, work))
    show_means(rows)


def main() -> None:
    """Prepare the sounds, then measure speed or accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "accuracy"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="parallel runs with one thread each (1: two threads)")
    args = parser.parse_args()
    work = args.work.resolve()
    prepare(args.data.resolve(), work, "flac")
    overrides = [*measure_statistics(work / "train.tsv"), f"task.data={work}"]
    (speed if args.what == "speed" else accuracy)(work, args, overrides)


if __name__ == "__main__":
    main()
