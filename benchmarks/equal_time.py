"""Recipes of pretraining at equal CPU time, judged by a ridge probe of the frozen encoder on validation clips.

    python benchmarks/equal_time.py keywords DATA --work WORK --minutes 10 [--recipes recipe vq ...] [--seeds 1 2 3]
    python benchmarks/equal_time.py esc10 DATA --work WORK --minutes 10
    python benchmarks/equal_time.py clothes DATA --work WORK --minutes 10
    python benchmarks/equal_time.py digits VIDEOS --work WORK --minutes 10
    python benchmarks/equal_time.py keywords DATA --work WORK --minutes 10 --recipes recipe --seeds 1 2 3 --test

keywords: DATA is the folder of Arabic Speech Commands. Pretraining uses the train split without labels; the probe is
fitted to the same clips and validated on the six speakers of the validation split. esc10: DATA holds esc10,
arabic-speech-commands and fsdd, as for esc10.py. Pretraining uses folds 1 to 3 of ESC-10 and the training splits of the
speech sets without labels; the probe is fitted to folds 1 to 3 and validated on folds 4 and 5. clothes: DATA is the
folder of images.py. Pretraining uses 85 % of the training images without labels; the probe is fitted to the same images
and validated on the others. digits: the videos of moving_digits.py, which are made in the folder VIDEOS; probed for the
direction and for the digit.

A recipe is `small` with the overrides of RECIPES. Its updates are those that take --minutes of CPU time with one
thread, the data loader's worker included: a run of 60 updates is compared with one of 20. The table shows the minutes
that each run took. --overrides are added to every recipe, and the name of the run gets --name.

--test is for the recipe that was chosen: it also tests each run once, with the pooling that validates best, beside
the untrained encoder and statistics of the input. keywords: on six speakers more; clothes, digits: on the test split.
esc10.py tests on ESC-10. --finetune does the same with `finetuning/small`, beside training from scratch: the checkpoint
that is best on the validation split is tested.

Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import shutil
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from corpora import CORPORA, Corpus
from runs import best_rows, finetune, mean_and_deviation, measure_statistics, train, untrained

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
    "1 level": ("model.num_codebooks=1",),
    "2 levels": ("model.num_codebooks=2",),
    "3 levels": ("model.num_codebooks=3",),
    "2 iterations": (),
    "2 iterations, random tokenizer": ("model.tokenizer_init=random",),
    "3 iterations": (),
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
ITERATIONS = {"2 iterations": 2, "2 iterations, random tokenizer": 2, "3 iterations": 3}  # of the others: 1
TOKENIZER_SHARE = 0.25  # of the updates of an encoder stage
Results = dict[str, list[dict]]  # of the seeds of each recipe
QUIET = ("optimization.lr=[0.001]", "dataset.disable_validation=true", "checkpoint.save_interval_updates=1000000")
SHORT, LONG = 20, 60  # updates of the runs that are timed


def cpu_seconds(folder: Path, examples: str, overrides: Sequence[str]) -> float:
    """Run pretraining in one thread; CPU time of the command and its workers. For a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    train(folder, "pretraining/small", overrides, 1, examples, earlier=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def stages(updates: int, iterations: int = 1) -> str:
    """Encoder stages of equal length with a shorter tokenizer stage between them; about this number of updates."""
    length = updates / (iterations + (iterations - 1) * TOKENIZER_SHARE)
    encoder = f"{{kind: encoder, {_length(length)}}}"  # its peak learning rate is optimization.lr
    tokenizer = f"{{kind: tokenizer, lr: 5.0e-4, {_length(length * TOKENIZER_SHARE)}}}"
    return f"model.stages=[{', '.join([encoder, *[tokenizer, encoder] * (iterations - 1)])}]"


def _length(updates: float) -> str:
    return f"updates: {round(updates)}, warmup_updates: {max(1, round(updates / 12))}"


def updates_in(seconds: float, work: Path, examples: str, overrides: Sequence[str], iterations: int = 1) -> int:
    """Number of updates that take this CPU time, by two short runs, each done twice: the shorter time counts."""
    taken = {SHORT: math.inf, LONG: math.inf}
    folder = work / "timing"
    for updates in (SHORT, LONG, SHORT, LONG):
        shutil.rmtree(folder, ignore_errors=True)
        own = [*overrides, stages(updates, iterations), "checkpoint.no_save=true"]
        taken[updates] = min(taken[updates], cpu_seconds(folder, examples, own))
    shutil.rmtree(folder)
    return max(LONG, round((seconds - taken[SHORT]) / (taken[LONG] - taken[SHORT]) * (LONG - SHORT)) + SHORT)


class Run(NamedTuple):
    """A recipe with a seed."""

    work: Path  # the manifests
    folder: Path
    planned: Path  # number of updates, the same for all seeds
    examples: str
    overrides: Sequence[str]
    iterations: int
    minutes: float

    @property
    def checkpoint(self) -> Path:
        """The last one."""
        return self.folder / "run" / "checkpoints" / "checkpoint_last.pt"

    def plan(self) -> None:
        """Measure how many updates there is time for."""
        if not (self.planned.exists() or (self.folder / "result.json").exists()):
            self.folder.mkdir(parents=True, exist_ok=True)
            updates = updates_in(60 * self.minutes, self.folder, self.examples, self.overrides, self.iterations)
            self.planned.write_text(json.dumps(updates), encoding="utf-8")


def pretrain_and_probe(corpus: Corpus, run: Run) -> dict:
    """One run and its probe: updates, CPU minutes, and the validation accuracy of each pooling."""
    result = run.folder / "result.json"
    if result.exists():
        return json.loads(result.read_text(encoding="utf-8"))
    updates = json.loads(run.planned.read_text(encoding="utf-8"))
    seconds = cpu_seconds(run.folder / "run", run.examples, [*run.overrides, stages(updates, run.iterations)])
    fitted, chosen = corpus.splits
    splits = ("--train", fitted, "--valid", chosen, "--test", chosen)
    accuracy = {}
    for labels in corpus.labels:
        out = run.folder / f"probe{labels}"
        corpus.probe(run.checkpoint, run.work / labels, "--out", out, *splits, "--no-baselines", "--resamples", "0")
        for row in json.loads((out / "probe.json").read_text(encoding="utf-8"))["rows"]:
            accuracy[f"{labels} {row['pooling']}".strip()] = {"valid": row["valid"], "layer": row["layer"]}
    content = {"updates": updates, "minutes": seconds / 60, "accuracy": accuracy}
    result.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return content


def runs_of(args: argparse.Namespace, corpus: Corpus, work: Path) -> dict[tuple[str, int], Run]:
    """(recipe, seed) -> run, of the command line's recipes and seeds."""
    own = [*measure_statistics(work / "train.tsv", *corpus.statistics), f"task.data={work}", *corpus.options, *QUIET]
    runs = {}
    for seed in args.seeds:
        for recipe in args.recipes:
            label = f"{recipe}{args.name and f' {args.name}'}"
            name = f"{label} {args.minutes:g}".replace(" ", "-").replace(",", "")
            overrides = [*own, f"common.seed={seed}", *RECIPES[recipe], *args.overrides]
            runs[label, seed] = Run(
                work=work,
                folder=work / "runs" / f"{name}-{seed}",
                planned=work / "runs" / f"{name}.updates.json",
                examples=corpus.examples,
                overrides=overrides,
                iterations=ITERATIONS.get(recipe, 1),
                minutes=args.minutes,
            )
    return runs


def perform(corpus: Corpus, runs: dict[tuple[str, int], Run], pool: Executor) -> Results:
    """Pretrain and probe: label -> the results of the seeds."""
    for run in runs.values():
        pool.submit(run.plan).result()  # one at a time
    jobs = {key: pool.submit(pretrain_and_probe, corpus, run) for key, run in runs.items()}
    results: Results = {}
    for (label, _), job in jobs.items():
        results.setdefault(label, []).append(job.result())
    return results


def test_once(corpus: Corpus, run: Run, seed: int) -> dict[str, float | str]:
    """Test accuracy of the encoder, an untrained one and statistics of the input, with the pooling that is chosen."""
    scores: dict[str, float | str] = {}
    for labels in corpus.labels:
        out = run.folder / f"test{labels}"
        if not (out / "probe.json").exists():
            corpus.probe(run.checkpoint, run.work / labels, "--out", out, "--seed", seed)
        for name, row in best_rows(out).items():
            scores[f"{labels} {name}".strip()] = row["test"]
            scores[f"{labels} {name} pooling".strip()] = row["pooling"]
    return scores


def finetune_once(corpus: Corpus, run: Run, seed: int) -> dict[str, float]:
    """Test accuracy after fine-tuning, and after training from scratch for as many updates."""
    scores = {}
    for labels in corpus.labels:
        for name in ("fine-tuned", "from scratch"):
            folder = run.folder / f"{name} {labels}".strip().replace(" ", "-")
            start = untrained(folder, run.checkpoint, seed) if name == "from scratch" else run.checkpoint
            options = [f"common.seed={seed}", *corpus.finetuning]
            data, config = run.work / labels, "finetuning/small"
            scores[f"{labels} {name}".strip()] = finetune(folder, start, data, options, 1, corpus.examples, config)
    return scores


def add_arguments(parser: argparse.ArgumentParser, recipes: Sequence[str] = tuple(RECIPES)) -> None:
    """Add the arguments that say which runs there are."""
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time of a run (10)")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(recipes))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs")
    parser.add_argument("--overrides", nargs="*", default=[], help="further overrides of the configuration")
    parser.add_argument("--name", default="", help="of runs with these overrides")


def process_pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that begin anew, so that the CPU time of their children is that of one run."""
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def main() -> None:
    """Pretrain and probe each recipe with each seed; print a row for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(CORPORA))
    add_arguments(parser)
    parser.add_argument("--test", action="store_true", help="test as well (not esc10)")
    parser.add_argument("--finetune", action="store_true", help="fine-tune and test as well (not esc10)")
    args = parser.parse_args()
    if (args.test or args.finetune) and args.set == "esc10":
        parser.error("--test or --finetune with esc10; esc10.py tests on it")
    corpus = CORPORA[args.set]
    work = args.work.resolve() / args.set
    corpus.prepare(args.data.resolve(), work)
    runs = runs_of(args, corpus, work)
    measures = [test_once] * args.test + [finetune_once] * args.finetune
    tests: dict[str, list[dict]] = {}
    with process_pool(args.jobs) as pool:
        rows = perform(corpus, runs, pool)
        jobs = {key: [pool.submit(measure, corpus, run, key[1]) for measure in measures] for key, run in runs.items()}
        for (label, _), of_run in jobs.items():
            scores = {name: score for job in of_run for name, score in job.result().items()}
            tests.setdefault(label, []).append(scores)
    poolings = list(next(iter(rows.values()))[0]["accuracy"])
    print(f"{'recipe':24} updates  minutes  " + "  ".join(f"{pooling:>22}" for pooling in poolings))
    for label, results in rows.items():
        minutes = sum(result["minutes"] for result in results) / len(results)
        cells = [mean_and_deviation([r["accuracy"][pooling]["valid"] for r in results]) for pooling in poolings]
        print(f"{label:24} {results[0]['updates']:7}  {minutes:7.1f}  " + "  ".join(f"{cell:>22}" for cell in cells))
    for label, of_seeds in tests.items():
        for name in of_seeds[0]:
            values = [scores[name] for scores in of_seeds]
            listed = ", ".join(value if isinstance(value, str) else f"{value:.3f}" for value in values)
            mean = "" if isinstance(values[0], str) else f"test {mean_and_deviation(values)}  "
            print(f"{label}, {name}: {mean}{listed}")


if __name__ == "__main__":
    main()
