"""Recipes of pretraining at equal CPU time, judged by a ridge probe of the frozen encoder on validation clips.

    python benchmarks/equal_time.py keywords DATA --work WORK --minutes 10 [--recipes recipe vq ...] [--seeds 1 2 3]
    python benchmarks/equal_time.py esc10 DATA --work WORK --minutes 10
    python benchmarks/equal_time.py clothes DATA --work WORK --minutes 10
    python benchmarks/equal_time.py keywords DATA --work WORK --minutes 10 --recipes recipe --seeds 1 2 3 --test

keywords: DATA is the folder of Arabic Speech Commands. Pretraining uses the train split without labels; the probe is
fitted to the same clips and validated on the six speakers of the validation split. esc10: DATA holds esc10,
arabic-speech-commands and fsdd, as for esc10.py. Pretraining uses folds 1 to 3 of ESC-10 and the training splits of the
speech sets without labels; the probe is fitted to folds 1 to 3 and validated on folds 4 and 5. clothes: DATA is the
folder of images.py. Pretraining uses 85 % of the training images without labels; the probe is fitted to the same images
and validated on the others.

A recipe is `small` with the overrides of RECIPES. Its updates are those that take --minutes of CPU time with one
thread, the data loader's worker included: a run of 60 updates is compared with one of 20. The table shows the minutes
that each run took. --overrides are added to every recipe, and the name of the run gets --name.

--test is for the recipe that was chosen: it also tests each run once, with the pooling that validates best, beside
the untrained encoder and statistics of the input. keywords: on six speakers more; clothes: on the test images. esc10.py
tests on ESC-10.

Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import keywords
from runs import (
    best_rows,
    bridle,
    decode,
    mean_and_deviation,
    measure_statistics,
    read_table,
    train,
    write_labelled,
    write_manifest,
)

SPEECH = {"arabic-speech-commands": "opus", "fsdd": "flac"}
WINDOWS = ("model.decoder_kind=attention", "model.decoder_window=[4,4]", "model.decoder_heads=4")
RECIPES: dict[str, Sequence[str]] = {
    "recipe": (),  # small as it is
    "no target_norm": ("model.target_norm=none",),
    "no target_norm, no positions": ("model.target_norm=none", "model.position_scale=0.0"),
    "no positions": ("model.position_scale=0.0",),
    "target_norm clip": ("model.target_norm=clip",),
    "target_norm patch": ("model.target_norm=patch",),
    "windows": WINDOWS,
    "windows, all predicted": (*WINDOWS, "model.predict_share=1.0"),
    "vq": ("+variant=vq",),
    "one codebook": ("model.num_codebooks=1", "model.codebook_size=1024"),
    "parallel": ("model.num_books=4",),
    "lr 5e-4": ("optimization.lr=[0.0005]",),
    "lr 2e-3": ("optimization.lr=[0.002]",),
    "mask 0.6": ("model.mask_ratio=0.6",),
    "mask 0.7": ("model.mask_ratio=0.7",),
    "block masks": ("model.masking=block",),
    "2 masks": ("model.num_masks=2", "dataset.batch_size=32"),
    "patches 16 x 16": ("model.patch_size=[16,16]",),
    "patches 4 x 32": ("model.patch_size=[4,32]",),
    "patches 4 x 128": ("model.patch_size=[4,128]",),
}
OF_SOUND = ("mean", "statistics", "frequency", "frequency_statistics", "segments")
OF_PIXELS = ("mean", "statistics", "class_token", "regions")


class Corpus(NamedTuple):
    """A set of clips."""

    options: tuple[str, ...]  # overrides of `small`
    splits: tuple[str, str] = ("train", "valid")  # to which the probe is fitted; on which it is validated
    examples: str = "audio"
    poolings: tuple[str, ...] = OF_SOUND
    statistics: tuple[object, ...] = ()  # options of `bridle stats`

    def probe(self, *arguments: object) -> None:
        """`bridle probe` with the ridge probe of these poolings."""
        bridle("probe", *arguments, "--probes", "ridge", "--layers", "3,4,5,6", "--pooling", *self.poolings, threads=1)


LONGER = ("task.max_sample_size=80000", "model.patch_size=[16,16]", "dataset.max_tokens=2048000")
CORPORA = {
    "keywords": Corpus(("task.roll=false",)),
    "esc10": Corpus(LONGER, ("fitted", "chosen")),
    "clothes": Corpus(
        (), examples="images", poolings=OF_PIXELS, statistics=("--modality", "image", "--image-size", 64)
    ),
}
QUIET = ("optimization.lr=[0.001]", "dataset.disable_validation=true", "checkpoint.save_interval_updates=1000000")
SHORT, LONG = 20, 60  # updates of the runs that are timed


def prepare(name: str, data: Path, work: Path) -> None:
    """Decode the sounds; write the manifests of pretraining and of the probe."""
    if name == "clothes":
        bridle("manifest", data, "--modality", "image", "--dest", work, "--valid-percent", "0.15", "--class-folders")
        return
    if name == "keywords":
        keywords.prepare(data, work, "flac")
        return
    tables = {part: read_table(data / part / "meta.csv") for part in ("esc10", *SPEECH)}
    sounds = work / "sounds"
    for part, kind in {"esc10": "opus", **SPEECH}.items():
        decode([data / part / kind / f"{row['name']}.{kind}" for row in tables[part]], sounds / part, "flac")
    speech = [f"{part}/{row['name']}.flac" for part in SPEECH for row in tables[part] if row["split"] == "train"]
    splits = {
        split: [(f"esc10/{row['name']}.flac", row["category"]) for row in tables["esc10"] if row["fold"] in folds]
        for split, folds in (("fitted", "123"), ("chosen", "45"))
    }
    write_labelled(work, sounds, splits)
    write_manifest(work / "train.tsv", sounds, [file for file, _ in splits["fitted"]] + speech)


def cpu_seconds(folder: Path, examples: str, overrides: Sequence[str]) -> float:
    """Run pretraining in one thread; CPU time of the command and its workers. For a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    train(folder, "pretraining/small", overrides, 1, examples, earlier=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def stages(updates: int) -> str:
    """The cold start alone; its peak learning rate is ``optimization.lr``."""
    return f"model.stages=[{{kind: encoder, updates: {updates}, warmup_updates: {max(1, updates // 12)}}}]"


def updates_in(seconds: float, work: Path, examples: str, overrides: Sequence[str]) -> int:
    """Number of updates that take this CPU time, by two short runs."""
    taken = []
    for updates in (SHORT, LONG):
        folder = work / "timing"
        shutil.rmtree(folder, ignore_errors=True)
        taken.append(cpu_seconds(folder, examples, [*overrides, stages(updates), "checkpoint.no_save=true"]))
    shutil.rmtree(work / "timing")
    return max(LONG, round((seconds - taken[0]) / (taken[1] - taken[0]) * (LONG - SHORT)) + SHORT)


def pretrain_and_probe(corpus: Corpus, work: Path, folder: Path, overrides: Sequence[str], minutes: float) -> dict:
    """One run and its probe: updates, CPU minutes, and the validation accuracy of each pooling."""
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    planned = folder / "updates.json"
    if not planned.exists():
        planned.write_text(json.dumps(updates_in(60 * minutes, folder, corpus.examples, overrides)), "utf-8")
    updates = json.loads(planned.read_text(encoding="utf-8"))
    seconds = cpu_seconds(folder / "run", corpus.examples, [*overrides, stages(updates)])
    fitted, chosen = corpus.splits
    splits = ("--train", fitted, "--valid", chosen, "--test", chosen)
    out = folder / "probe"
    checkpoint = folder / "run" / "checkpoints" / "checkpoint_last.pt"
    corpus.probe(checkpoint, work, "--out", out, *splits, "--no-baselines", "--resamples", "0")
    rows = json.loads((out / "probe.json").read_text(encoding="utf-8"))["rows"]
    accuracy = {row["pooling"]: {"valid": row["valid"], "layer": row["layer"]} for row in rows}
    content = {"updates": updates, "minutes": seconds / 60, "accuracy": accuracy}
    result.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return content


def test_once(corpus: Corpus, work: Path, folder: Path, seed: int) -> dict[str, dict]:
    """The rows of a probe that validate best, with their test accuracy."""
    out = folder / "test"
    if not (out / "probe.json").exists():
        checkpoint = folder / "run" / "checkpoints" / "checkpoint_last.pt"
        corpus.probe(checkpoint, work, "--out", out, "--seed", seed)
    return best_rows(out)


def show_tests(label: str, tests: list[dict[str, dict]]) -> None:
    """Mean and deviation of the test accuracies over the seeds."""
    for name in tests[0]:
        rows = [test[name] for test in tests]
        listed = ", ".join(f"{row['test']:.3f} ({row['pooling']})" for row in rows)
        print(f"{label}, {name}: test {mean_and_deviation([row['test'] for row in rows])}  {listed}")


def main() -> None:
    """Pretrain and probe each recipe with each seed; print a row for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(CORPORA))
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time of a run (10)")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs")
    parser.add_argument("--overrides", nargs="*", default=[], help="further overrides of the configuration")
    parser.add_argument("--name", default="", help="of runs with these overrides")
    parser.add_argument("--test", action="store_true", help="test as well (keywords, clothes)")
    args = parser.parse_args()
    if args.test and args.set == "esc10":
        parser.error("--test with esc10; esc10.py tests on it")
    corpus = CORPORA[args.set]
    work = args.work.resolve() / args.set
    prepare(args.set, args.data.resolve(), work)
    own = [*measure_statistics(work / "train.tsv", *corpus.statistics), f"task.data={work}", *corpus.options, *QUIET]
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {}
        for seed in args.seeds:
            for recipe in args.recipes:
                label = f"{recipe}{args.name and f' {args.name}'}"
                folder = work / "runs" / f"{label} {args.minutes:g} {seed}".replace(" ", "-").replace(",", "")
                overrides = [*own, f"common.seed={seed}", *RECIPES[recipe], *args.overrides]
                job = pool.submit(pretrain_and_probe, corpus, work, folder, overrides, args.minutes)
                jobs[label, seed] = folder, job
        rows: dict[str, list[dict]] = {}
        for (label, _), (_, job) in jobs.items():
            rows.setdefault(label, []).append(job.result())
        tests: dict[str, list[dict]] = {}
        if args.test:
            started = [
                (label, pool.submit(test_once, corpus, work, jobs[label, seed][0], seed)) for label, seed in jobs
            ]
            for label, job in started:
                tests.setdefault(label, []).append(job.result())
    print(f"{'recipe':24} updates  minutes  " + "  ".join(f"{pooling:>22}" for pooling in corpus.poolings))
    for label, results in rows.items():
        minutes = sum(result["minutes"] for result in results) / len(results)
        cells = [mean_and_deviation([r["accuracy"][pooling]["valid"] for r in results]) for pooling in corpus.poolings]
        print(f"{label:24} {results[0]['updates']:7}  {minutes:7.1f}  " + "  ".join(f"{cell:>22}" for cell in cells))
    for label, of_seeds in tests.items():
        show_tests(label, of_seeds)


if __name__ == "__main__":
    main()
