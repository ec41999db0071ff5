"""Speed and accuracy of cheaper recipes for `tiny`, on spoken keywords in FLAC files.

    python benchmarks/recipes.py speed DATA --work WORK [--recipes paper fast] [--rounds 5] [--first-stage]
    python benchmarks/recipes.py accuracy DATA --work WORK [--recipes paper fast] [--seeds 1 2 3] [--first-stage]

DATA and the split are those of keywords.py. `paper` is `tiny` in float32: one mask per clip, all masked patches are
predicted with windowed attention, and the tokenizer runs in every update. `fast` is `tiny_fast`: the same number of
updates in one iteration. The other recipes change `bfloat16`, which is `tiny` in bfloat16. `two-masks` masks each of
32 clips twice per update, `two-masks-of-half` each of 16.

speed: fairseq-hydra-train end to end, all recipes in turn, with a twentieth of each stage's updates. Clips per second
of a full run are computed from the time per update of each stage, from the timestamps of the log. Process start and
k-means are excluded. Prints medians over the rounds and the ratio to the first recipe.
accuracy: all updates of all stages (--first-stage: only the cold start), then the probe of keywords.py (mean and
frequency rows kept). Stopped runs are resumed; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keywords import Probes, iterations, prepare, show_means
from runs import measure_statistics, train, update_times

STAGES = (("encoder", 600), ("tokenizer", 200), ("encoder", 400))  # of tiny
FAST_STAGES = (("encoder", 1120), ("tokenizer", 80))  # of tiny_fast
SHORTER, FEWEST = 20, 10  # speed: a stage has 1/20 of its updates, but at least 10
SETTLING, LOG_INTERVAL = 5, 5  # updates of a stage that are not timed; updates between log lines
CONVOLUTION = ("model.decoder_kind=convolution", "model.decoder_window=[]", "model.decoder_heads=8")
SPARSE = ("model.mask_ratio=0.8", "model.predict_share=0.25")
BF16 = "model.precision=bfloat16"
RECIPES = {
    "paper": ("tiny", ["model.precision=float32"]),
    "bfloat16": ("tiny", [BF16]),
    "mask": ("tiny", [BF16, "model.mask_ratio=0.8"]),
    "share": ("tiny", [BF16, "model.predict_share=0.25"]),
    "global": ("tiny", [BF16, "model.mask_ratio=0.8", "model.decoder_window=[]"]),
    "convolution": ("tiny", [BF16, *CONVOLUTION]),
    "sparse": ("tiny", [BF16, *CONVOLUTION, *SPARSE]),
    "one-block": ("tiny", [BF16, *CONVOLUTION, *SPARSE, "model.decoder_depth=1"]),
    "two-masks": ("tiny", [BF16, *CONVOLUTION, *SPARSE, "model.num_masks=2"]),
    "two-masks-of-half": ("tiny", [BF16, *CONVOLUTION, *SPARSE, "model.num_masks=2", "dataset.batch_size=16"]),
    "fast": ("tiny_fast", [BF16]),
}


def run(work: Path, folder: str, recipe: str, overrides: list[str], threads: int) -> Path:
    """Run pretraining; return the folder of its checkpoints."""
    config, own = RECIPES[recipe]
    return train(work / folder, f"pretraining/{config}", [f"task.data={work}", *own, *overrides], threads)


def clips_per_second(work: Path, recipe: str, overrides: list[str], first_stage: bool) -> float:
    """Clips per second of a full run, estimated from a short run. A clip counts once for each of its masks."""
    stages = (FAST_STAGES if recipe == "fast" else STAGES)[: 1 if first_stage else None]
    lengths = [max(FEWEST, count // SHORTER // LOG_INTERVAL * LOG_INTERVAL) for _, count in stages]
    short_stages = [
        f"{{kind: {kind}, updates: {n}, lr: 5.0e-4, warmup_updates: 1}}"
        for (kind, _), n in zip(stages, lengths, strict=True)
    ]
    own = [
        f"model.stages=[{', '.join(short_stages)}]",
        f"common.log_interval={LOG_INTERVAL}",
        "dataset.disable_validation=true",
    ]
    folder = work / f"speed-{recipe}"
    shutil.rmtree(folder, ignore_errors=True)
    run(work, folder.name, recipe, [*own, "checkpoint.no_save=true", *overrides], threads=1)
    times, seconds, first = update_times(folder), 0.0, 0
    for (_, count), n in zip(stages, lengths, strict=True):
        start, end = (times[(first + update) // LOG_INTERVAL - 1] for update in (SETTLING, n))
        seconds, first = seconds + count * (end - start) / (n - SETTLING), first + n
    clips = 64 if recipe == "two-masks" else 32
    return clips * sum(count for _, count in stages) / seconds


def speed(work: Path, args: argparse.Namespace, overrides: list[str]) -> None:
    """Time all recipes in turn."""
    rates: dict[str, list[float]] = {recipe: [] for recipe in args.recipes}
    for _ in range(args.rounds):
        for recipe, values in rates.items():
            values.append(clips_per_second(work, recipe, overrides, args.first_stage))
    reference = statistics.median(rates[args.recipes[0]])
    for recipe, values in rates.items():
        median = statistics.median(values)
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"{recipe:20} {median:7.1f} clips/s ({spread})  x{median / reference:.2f}", flush=True)


def accuracy(work: Path, args: argparse.Namespace, overrides: list[str]) -> None:
    """Train each recipe with each seed, then probe the encoder after its last stage."""
    import bridle_fairseq

    bridle_fairseq.register()
    length, name = ([f"optimization.max_update={STAGES[0][1]}"], "first") if args.first_stage else ([], "all")
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {
            (recipe, seed): pool.submit(
                run,
                work,
                f"{name}-{recipe}-{seed}",
                recipe,
                [f"common.seed={seed}", *length, *overrides],
                1 if args.jobs > 1 else 2,
            )
            for seed in args.seeds
            for recipe in args.recipes
        }
        runs = {key: job.result() for key, job in jobs.items()}
    probes, rows = Probes(work / "probes.json"), {}
    for (recipe, seed), checkpoints in runs.items():
        path = list(iterations(checkpoints).values())[-1]
        rows.setdefault(recipe, []).append(probes.of_encoder(f"{name}, {recipe}, seed {seed}", path, work))
    show_means(rows)


def main() -> None:
    """Prepare the sounds, then measure speed or accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "accuracy"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=["paper", "fast"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="parallel runs with one thread each (1: two threads)")
    parser.add_argument("--first-stage", action="store_true", help="only the cold start")
    args = parser.parse_args()
    work = args.work.resolve()
    prepare(args.data.resolve(), work, "flac")
    overrides = [*measure_statistics(work / "train.tsv"), "task.roll=false"]
    (speed if args.what == "speed" else accuracy)(work, args, overrides)


if __name__ == "__main__":
    main()
