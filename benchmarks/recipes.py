"""What each way to do less arithmetic saves, and what the encoder is worth afterwards: `tiny`, keywords, FLAC files.

    python benchmarks/recipes.py speed DATA --work WORK [--recipes paper fast] [--rounds 5] [--first-stage]
    python benchmarks/recipes.py accuracy DATA --work WORK [--recipes paper fast] [--seeds 1 2 3] [--first-stage]

DATA and the split are those of keywords.py. `paper` is `tiny` in float32: one mask a clip, all masked patches predicted
by attention among neighbours, the tokenizer run in every update. `fast` is `tiny_fast`: as many updates in one
iteration. The others change `bfloat16`, which is `tiny` in bfloat16. `two-masks` hides each of 32 clips twice in an
update, `two-masks-of-half` each of 16.

speed: fairseq-hydra-train end to end, all recipes in turn, a twentieth of each stage's updates; clips a second of the
whole run from what an update of each stage takes by the log's clock (start of the process and k-means left out);
medians over rounds, and the ratio to the first recipe.
accuracy: all updates of all stages (--first-stage: of the cold start alone), then the probe of keywords.py: mean
and frequency rows kept. Runs are resumed where they stopped, and what is finished is not done again.
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
# Of a short run: a share of the updates, at least; updates of a stage not timed; updates between lines of the log.
SHORTER, FEWEST, SETTLING, LOGGED = 20, 10, 5, 5
CROSS = ("model.decoder_kind=cross", "model.decoder_window=[]")
CONVOLUTION = ("model.decoder_kind=convolution", "model.decoder_window=[]", "model.decoder_heads=8")
SPARSE = ("model.mask_ratio=0.8", "model.predict_share=0.25")
BF16 = "model.precision=bfloat16"
RECIPES = {
    "paper": ("tiny", ["model.precision=float32"]),
    "bfloat16": ("tiny", [BF16]),
    "mask": ("tiny", [BF16, "model.mask_ratio=0.8"]),
    "share": ("tiny", [BF16, "model.predict_share=0.25"]),
    "global": ("tiny", [BF16, "model.mask_ratio=0.8", "model.decoder_window=[]"]),
    "cross": ("tiny", [BF16, *CROSS]),
    "cross-sparse": ("tiny", [BF16, *CROSS, *SPARSE]),
    "convolution": ("tiny", [BF16, *CONVOLUTION]),
    "sparse": ("tiny", [BF16, *CONVOLUTION, *SPARSE]),
    "one-block": ("tiny", [BF16, *CONVOLUTION, *SPARSE, "model.decoder_depth=1"]),
    "two-masks": ("tiny", [BF16, *CONVOLUTION, *SPARSE, "model.num_masks=2"]),
    "two-masks-of-half": ("tiny", [BF16, *CONVOLUTION, *SPARSE, "model.num_masks=2", "dataset.batch_size=16"]),
    "fast": ("tiny_fast", [BF16]),
}


def run(work: Path, folder: str, recipe: str, overrides: list[str], threads: int) -> Path:
    """One run of pretraining; its folder of checkpoints."""
    config, own = RECIPES[recipe]
    return train(work / folder, f"pretraining/{config}", [f"task.data={work}", *own, *overrides], threads)


def clips_per_second(work: Path, recipe: str, overrides: list[str], first_stage: bool) -> float:
    """Of a whole run, from the log's clock in a short run through its stages; a clip counts once for each mask."""
    stages = (FAST_STAGES if recipe == "fast" else STAGES)[: 1 if first_stage else None]
    short = [max(FEWEST, count // SHORTER // LOGGED * LOGGED) for _, count in stages]
    parts = [
        f"{{kind: {kind}, updates: {n}, lr: 5.0e-4, warmup_updates: 1}}"
        for (kind, _), n in zip(stages, short, strict=True)
    ]
    own = [f"model.stages=[{', '.join(parts)}]", f"common.log_interval={LOGGED}", "dataset.disable_validation=true"]
    folder = work / f"speed-{recipe}"
    shutil.rmtree(folder, ignore_errors=True)
    run(work, folder.name, recipe, [*own, "checkpoint.no_save=true", *overrides], threads=1)
    ends, seconds, first = update_times(folder), 0.0, 0
    for (_, count), n in zip(stages, short, strict=True):
        start, end = (ends[(first + update) // LOGGED - 1] for update in (SETTLING, n))
        seconds, first = seconds + count * (end - start) / (n - SETTLING), first + n
    clips = 64 if recipe == "two-masks" else 32
    return clips * sum(count for _, count in stages) / seconds


def speed(work: Path, args: argparse.Namespace, overrides: list[str]) -> None:
    """All recipes in turn, several times."""
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
    """Train every recipe with every seed, then probe what the last encoder stage left."""
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
    """Prepare the sounds, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "accuracy"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=["paper", "fast"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each (1: two threads)")
    parser.add_argument("--first-stage", action="store_true")
    args = parser.parse_args()
    work = args.work.resolve()
    prepare(args.data.resolve(), work, "flac")
    overrides = [*measure_statistics(work / "train.tsv"), "task.roll=false"]
    (speed if args.what == "speed" else accuracy)(work, args, overrides)


if __name__ == "__main__":
    main()
