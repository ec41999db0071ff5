"""Effect of pretraining on images or videos: the comparison that :mod:`images` and :mod:`moving_digits` share.

For every method and seed, an encoder and then its tokenizer are pretrained without labels. `bridle probe` compares the
frozen encoder with the untrained one and with histograms of colours and edges. Then the encoder is fine-tuned on the
labels and compared with training from scratch. Choices are made on validation data; the test data is used once.

Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runs import bridle, finetune, mean_and_deviation, train, untrained

from bridle_fairseq.training.log import read_log

METHODS = {"rq": [], "vq": ["+variant=vq"]}  # 4 x 256 codes, 1 x 1024
Row = tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A comparison.

    Attributes:
        work: folder of the runs: ``{method}-{seed}``, ``{method}-fine-tuned-{seed}-{name}``, ``scratch-{seed}-{name}``.
        examples: folder of the configurations in ``examples``: ``images`` or ``video``.
        unlabelled: data folder for pretraining.
        labelled: name -> data folder for probes and fine-tuning.
        pretraining, finetuning: overrides.
        updates: of the encoder, the tokenizer and fine-tuning.
        threads: per run.
    """

    work: Path
    examples: str
    unlabelled: Path
    labelled: dict[str, Path]
    pretraining: Sequence[str]
    finetuning: Sequence[str]
    updates: tuple[int, int, int]
    threads: int

    def pretrain(self, method: str, seed: int) -> Path:
        """Pretrain encoder and tokenizer; return the last checkpoint."""
        encoder, tokenizer, _ = self.updates
        stages = [
            f"{{kind: encoder, updates: {encoder}, lr: 1.0e-3, warmup_updates: {encoder // 10}}}",
            f"{{kind: tokenizer, updates: {tokenizer}, lr: 5.0e-4, warmup_updates: {tokenizer // 10}}}",
        ]
        own = [f"common.seed={seed}", f"task.data={self.unlabelled}", f"model.stages=[{', '.join(stages)}]"]
        overrides = [*METHODS[method], *own, *self.pretraining]
        folder = train(self.work / f"{method}-{seed}", "pretraining/tiny", overrides, self.threads, self.examples)
        return folder / "checkpoint_last.pt"

    def perplexities(self, method: str, seed: int) -> dict[Row, float]:
        """Logged perplexity of each level's codes at the end of the tokenizer stage."""
        records = read_log(self.work / f"{method}-{seed}" / "stdout.log")
        values = [record.values for record in records if record.split == "train"][-1]
        by_level = {name: value for name, value in sorted(values.items()) if name.startswith("perplexity_")}
        return {("perplexity", f"level {name.removeprefix('perplexity_')}"): value for name, value in by_level.items()}

    def probe(self, checkpoint: Path, method: str, seed: int) -> dict[Row, float]:
        """Test accuracies of ``bridle probe``, by label set, features, pooling and kind of probe."""
        results = {}
        for name, data in self.labelled.items():
            out = self.work / f"{method}-{seed}" / f"probe-{name}"
            if not (out / "probe.csv").exists():
                bridle("probe", checkpoint, data, "--out", out, "--seed", seed)
            with open(out / "probe.csv", encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    results[name, row["features"], row["pooling"], row["probe"]] = float(row["test"])
        return results

    def finetune(self, checkpoint: Path, name: str, seed: int, from_scratch: bool = False) -> dict[Row, float]:
        """Test accuracy after fine-tuning, by label set."""
        updates = self.updates[2]
        length = (f"optimization.max_update={updates}", f"lr_scheduler.warmup_updates={updates // 10}")
        results = {}
        for labels, data in self.labelled.items():
            folder = self.work / f"{name}-{seed}-{labels}"
            start = untrained(folder, checkpoint, seed) if from_scratch else checkpoint
            overrides = [f"common.seed={seed}", *length, *self.finetuning]
            results[labels, name] = finetune(folder, start, data, overrides, self.threads, self.examples)
        return results

    def run(self, method: str, seed: int) -> dict[Row, float]:
        """All results of a method and seed. The first method includes training from scratch."""
        checkpoint = self.pretrain(method, seed)
        results = {(method, *row): value for row, value in self.perplexities(method, seed).items()}
        results |= {(method, *row): value for row, value in self.probe(checkpoint, method, seed).items()}
        results |= self.finetune(checkpoint, f"{method}-fine-tuned", seed)
        if method == next(iter(METHODS)):
            results |= self.finetune(checkpoint, "scratch", seed, from_scratch=True)
        print(f"{method}, seed {seed}: done", flush=True)
        return results


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line arguments that all studies share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=2, help="parallel runs with one thread each (1: two threads)")
    parser.add_argument("--overrides", nargs="*", default=[], help="further overrides for pretraining")
    return parser


def compare(make_study: Callable[[int], Study], args: argparse.Namespace) -> None:
    """Run ``make_study(threads)`` for all methods and seeds, and print mean and deviation of each result."""
    import bridle_fairseq

    bridle_fairseq.register()
    study = make_study(1 if args.jobs > 1 else 2)
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [pool.submit(study.run, method, seed) for seed in args.seeds for method in args.methods]
        finished = [job.result() for job in jobs]
    rows: dict[Row, list[float]] = {}
    for results in finished:
        for row, value in results.items():
            rows.setdefault(row, []).append(value)
    for row, values in sorted(rows.items()):
        listed = " ".join(f"{value:.3f}" for value in values)
        print(f"{', '.join(row):60}  {mean_and_deviation(values)}  ({listed})")
