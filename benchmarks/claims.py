"""What the parts of the method are worth on spoken keywords: levels, books, iterations, at equal CPU time.

    python benchmarks/claims.py DATA --work WORK [--minutes 10] [--seeds 1 2 3] [--recipes "1 level" ...] [--jobs 1]

DATA and the recipes are those of `equal_time.py keywords`, but a batch has 32 clips, not 64: that is as good in the
same time, with twice the updates. Finished runs are not repeated.

Each recipe's frozen encoder is judged by a ridge probe that is fitted to the 18 speakers of the train split and tested
on the 12 others: layer and regularization are chosen on the six speakers of the validation split and tested on those of
the test split, and the other way round. Printed is each recipe minus the first one, on the same 1440 clips: the mean
over seeds, with a 95 % interval by bootstrap over the clips and over the seeds of both.

Then what each level of a tokenizer adds as input: the same probe on the sum of the first k levels' code vectors, and on
the tokenizer's outputs before quantization, of the runs with two iterations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import equal_time
import numpy as np
import torch
from corpora import CORPORA
from keywords import SPLITS, waveforms
from runs import mean_and_deviation

POOLINGS = ("mean", "frequency_statistics")
LAYERS = (3, 4, 5, 6)
RECIPES = (
    "recipe",
    "vq",
    "parallel",
    "1 level",
    "2 levels",
    "3 levels",
    "2 iterations",
    "2 iterations, random tokenizer",
    "3 iterations",
)
BATCH = ("dataset.batch_size=32",)
Pooled = Mapping[tuple[str, int], torch.Tensor]  # (pooling, layer or level) -> B x d


def right_clips(features: list[Mapping[int, np.ndarray]], labels: list[np.ndarray]) -> np.ndarray:
    """Which clips of the validation and the test split the probe gets right, when the other split chooses: 0 and 1.

    Args:
        features: of the three splits, by layer: n x d.
        labels: of the three splits: n.
    """
    from bridle_fairseq.evaluation.ridge import REGULARIZATIONS, Ridge

    tried = []  # settings x 2 splits x clips
    for layer, train in features[0].items():
        mean, deviation = train.mean(0), np.maximum(train.std(0), 1e-6)
        fitted, *tested = ((split[layer] - mean) / deviation for split in features)
        ridge = Ridge(fitted, np.eye(labels[0].max() + 1)[labels[0]])
        for fit in map(ridge.fit, REGULARIZATIONS):
            tried.append([fit(x).argmax(1) == y for x, y in zip(tested, labels[1:], strict=True)])
    best = np.mean(tried, axis=2).argmax(0)  # by validation, by test
    return np.concatenate([tried[best[1]][0], tried[best[0]][1]])


def probe(work: Path, file: Path, pooled: Callable[[torch.Tensor], Pooled], by_layer: bool) -> dict[str, np.ndarray]:
    """Which clips are right, by pooling (``by_layer``: the best layer of each, else: by pooling and level).

    Args:
        work: folder of the manifests.
        file: for the result, which is read if it is there.
        pooled: waveforms B x S -> features.
        by_layer: whether validation chooses among the layers, or each is a result.
    """
    if not file.exists():
        labels = [np.load(work / f"{split}.labels.npy") for split in SPLITS]
        splits = []
        for split in SPLITS:
            batches = [pooled(batch) for batch in waveforms(work, split).split(128)]
            splits.append({key: torch.cat([batch[key] for batch in batches]).numpy() for key in batches[0]})
        results = {}
        for pooling in POOLINGS:
            layers = [layer for name, layer in splits[0] if name == pooling]
            for group in [layers] if by_layer else [[layer] for layer in layers]:
                features = [{layer: split[pooling, layer] for layer in group} for split in splits]
                results[pooling if by_layer else f"{pooling} {group[0]}"] = right_clips(features, labels)
        np.savez(file, **results)
    with np.load(file) as stored:
        return dict(stored)


def of_encoder(work: Path, checkpoint: Path, file: Path) -> dict[str, np.ndarray]:
    """Which clips the frozen encoder of a checkpoint gets right."""
    from bridle_fairseq.inference.extractors import encoder_features
    from bridle_fairseq.models.checkpoints import load_model

    model = load_model(str(checkpoint))[0]
    return probe(work, file, lambda source: encoder_features(model, source, None, POOLINGS, LAYERS), by_layer=True)


def of_levels(work: Path, checkpoint: Path, file: Path) -> dict[str, np.ndarray]:
    """Which clips the first k levels' code vectors get right; with k one more than there are, the outputs before."""
    from bridle_fairseq.models.checkpoints import load_model
    from bridle_fairseq.nn.encoder import EncoderOutput
    from bridle_fairseq.nn.pooling import pool_patches

    model = load_model(str(checkpoint))[0]
    depth = model.quantizer.num_codebooks

    @torch.inference_mode()
    def pooled(source: torch.Tensor) -> Pooled:
        patches = model.patches(source)
        latents = model.latents(patches, from_tokenizer=True)  # B x N x D
        latents = torch.nn.functional.normalize(latents.float(), dim=-1)  # as the quantizer takes them
        codes = model.quantizer.encode(latents)  # B x N x K
        vectors = {k: model.quantizer.decode(codes, torch.full((len(codes),), k)) for k in range(1, depth + 1)}
        features = {}
        for level, x in {**vectors, depth + 1: latents}.items():
            out = EncoderOutput(x, x.mean(1), ())
            for pooling in POOLINGS:
                features[pooling, level] = pool_patches(out, patches.grid, None, pooling)
        return features

    return probe(work, file, pooled, by_layer=False)


def difference(first: np.ndarray, second: np.ndarray, resamples: int = 50_000) -> tuple[float, float, float]:
    """Mean of the first minus the second, and its 95 % interval.

    Args:
        first, second: seeds x clips, of the same clips.
        resamples: of the clips, which both share, and of each one's seeds.
    """
    rng = np.random.default_rng(1)
    values = []
    for _ in range(resamples):
        clips = rng.integers(first.shape[1], size=first.shape[1])
        a, b = (of[rng.integers(len(of), size=len(of))][:, clips].mean(dtype=np.float64) for of in (first, second))
        values.append(a - b)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(first.mean(dtype=np.float64) - second.mean(dtype=np.float64)), float(low), float(high)


def show(right: Mapping[str, Mapping[str, np.ndarray]], against: str) -> None:
    """A row for each recipe or level: accuracy over the seeds, and the difference to one of them."""
    for pooling in next(iter(right.values())):
        print(f"\n{pooling}")
        for label, of in right.items():
            row = f"{label:32} {mean_and_deviation(of[pooling].mean(1).tolist())}"
            if label != against:
                value, low, high = difference(of[pooling], right[against][pooling])
                row += f"  {value:+.3f} ({low:+.3f} to {high:+.3f})"
            print(row)


def main() -> None:
    """Pretrain, probe, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    equal_time.add_arguments(parser, RECIPES)
    args = parser.parse_args()
    args.overrides, args.name = [*BATCH, *args.overrides], f"batch 32 {args.name}".strip()
    work = args.work.resolve() / "keywords"
    corpus = CORPORA["keywords"]
    corpus.prepare(args.data.resolve(), work)
    runs = equal_time.runs_of(args, corpus, work)
    with equal_time.process_pool(args.jobs) as pool:
        results = equal_time.perform(corpus, runs, pool)
    for label, of_seeds in results.items():
        taken = ", ".join(f"{result['minutes']:.1f}" for result in of_seeds)
        print(f"{label:32} {of_seeds[0]['updates']:5} updates, CPU minutes: {taken}")

    def stacked(label: str, measure: Callable[[Path, Path, Path], Mapping[str, np.ndarray]], name: str):
        of_seeds = [measure(work, run.checkpoint, run.folder / name) for (of, _), run in runs.items() if of == label]
        return {key: np.stack([one[key] for one in of_seeds]) for key in of_seeds[0]}

    encoders = {label: stacked(label, of_encoder, "encoder.npz") for label in results}
    show(encoders, next(iter(results)))
    for label in results:
        if label.startswith("2 iterations"):
            levels = stacked(label, of_levels, "levels.npz")
            print(f"\nlevels as input, {label}")
            for key, right in levels.items():
                print(f"{key:32} {mean_and_deviation(right.mean(1).tolist())}")


if __name__ == "__main__":
    main()
