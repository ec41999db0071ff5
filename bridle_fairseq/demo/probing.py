"""The demo's comparison: linear probes of the pretrained encoder, of the same one untrained, and of the input."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.cli.features import choose_chunking
from bridle_fairseq.cli.probe import default_poolings, extract
from bridle_fairseq.data.artifacts.features import FeatureArray
from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.demo.report import Row
from bridle_fairseq.evaluation import probe
from bridle_fairseq.inference.baselines import baseline_of
from bridle_fairseq.inference.extractors import EncoderFeatures, untrained_twin

SPLITS = ("train", "valid", "test")
POOLING_NAMES = {
    "mean": "mean of all patches",
    "frequency": "time mean, frequency rows kept apart",
    "class_token": "class token",
    "deviation": "mean and deviation",
    "segments": "means of four segments",
}
SOURCE_NAMES = {"encoder": "BRIDLE encoder, pretrained", "untrained": "the same encoder, untrained"}
READING = Namespace(batch_size=32, max_tokens=3_200_000, workers=2, out=None, max_skipped=1.0)
WHOLE = Namespace(chunk_seconds=None, overlap_seconds=None)


class Comparison(NamedTuple):
    """What the probes found."""

    rows: list[Row]
    pretrained: float  # accuracy of the pretrained encoder, with the pooling that validates best
    untrained: float
    baseline: float  # likewise of statistics of the input
    chance: float  # share of the most frequent class
    test_clips: int
    classes: int


def compare(model: Any, task: Any, manifests: Path, seed: int, say: Callable[[str], None]) -> Comparison:
    """Probe the encoder, its untrained twin and the input; every choice is made on the validation part."""
    layers, poolings = range(1, model.encoder.depth + 1), default_poolings(model)
    extractors: list[Any] = [EncoderFeatures(model, layers, poolings)]
    extractors += [EncoderFeatures(untrained_twin(model, seed), layers, poolings, "untrained"), baseline_of(model)]
    chunking, device = choose_chunking(WHOLE, model.front_end, task), next(model.parameters()).device
    classes = Classes.read(manifests / "labels.csv")
    features, labels = {}, {}
    for split in SPLITS:
        manifest = Manifest.read(manifests / f"{split}.tsv")
        found = extract(READING, manifest, chunking, extractors, device, split)
        readable = np.isfinite(next(iter(found.values()))[:, 0])
        features[split] = {array: values[readable] for array, values in found.items()}
        of_row = Labels.read(manifests / f"{split}.lbl", manifest, classes)
        labels[split] = np.array([of_row[row][0] for row in np.flatnonzero(readable).tolist()])
        say(f"  features of {len(labels[split])} {split} clips")
    answers = probe.Split(*(labels[split] for split in SPLITS))
    kinds: dict[tuple[str, str], dict[int, FeatureArray]] = {}
    for array in features["train"]:
        kinds.setdefault((array.source, array.pooling), {})[array.layer] = array
    results = {}
    for kind, arrays in kinds.items():
        candidates = {
            layer: probe.Split(*(features[split][array] for split in SPLITS)) for layer, array in arrays.items()
        }
        results[kind] = probe.linear_probe(candidates, answers)
    return _summary(results, answers, len(classes))


def _summary(results: dict[tuple[str, str], probe.ProbeResult], answers: probe.Split, classes: int) -> Comparison:
    rows = []
    best: dict[str, probe.ProbeResult] = {}
    for (source, pooling), result in results.items():
        kind = source if source in SOURCE_NAMES else "baseline"
        if kind not in best or result.valid_score > best[kind].valid_score:
            best[kind] = result
        layer = f"layer {result.candidate}, " if result.candidate else ""
        name = f"{SOURCE_NAMES.get(source, source)}: {POOLING_NAMES.get(pooling, pooling)}"
        rows.append(Row(name, result.score, f"{layer}C = {result.settings['C']:g}"))
    values, frequent = np.unique(answers.train, return_counts=True)
    chance = float((answers.test == values[frequent.argmax()]).mean())
    rows.append(Row("always the most frequent class", chance))
    max(rows, key=lambda row: row.accuracy).best = True
    scores = (best[kind].score for kind in ("encoder", "untrained", "baseline"))
    return Comparison(rows, *scores, chance, len(answers.test), classes)
