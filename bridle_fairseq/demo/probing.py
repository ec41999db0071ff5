"""The demo's comparison: linear probes of the pretrained encoder, of the same one untrained, and of the log-mel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq import probe
from bridle_fairseq.corpus import read_batches
from bridle_fairseq.data.audio import AudioDataset
from bridle_fairseq.data.labels import Classes, Labels
from bridle_fairseq.data.manifest import Manifest
from bridle_fairseq.demo.report import Row
from bridle_fairseq.features import encoder_features, untrained_twin
from bridle_fairseq.nn.pooling import log_mel_deviation, log_mel_segments

BATCH = 32
SPLITS = ("train", "valid", "test")
POOLINGS = ("mean", "frequency")
POOLING_NAMES = {"mean": "mean of all patches", "frequency": "time mean, frequency rows kept apart"}


class Comparison(NamedTuple):
    """What the probes found."""

    rows: list[Row]
    pretrained: float  # accuracy of the pretrained encoder, with the pooling that validates best
    untrained: float
    log_mel: float
    chance: float  # share of the most frequent class
    test_clips: int
    classes: int


def features_of_split(models: dict[str, Any], dataset: AudioDataset) -> tuple[dict[Any, np.ndarray], np.ndarray]:
    """Features by (kind, pooling, layer) of all readable clips, and their rows in the manifest."""
    found: dict[Any, list[Tensor]] = {}
    rows: list[int] = []
    log_mel = next(iter(models.values())).front_end.log_mel
    for batch in read_batches(dataset, BATCH):
        inputs, rows = batch["net_input"], rows + batch["id"].tolist()
        device = next(next(iter(models.values())).parameters()).device
        source, mask = (None if x is None else x.to(device) for x in (inputs["source"], inputs["padding_mask"]))
        assert source is not None
        for name, model in models.items():
            for key, value in encoder_features(model, source, mask).items():
                found.setdefault((name, *key), []).append(value.cpu())
        fbank, frame_padding = log_mel(source, mask)
        found.setdefault(("deviation", "", 0), []).append(log_mel_deviation(fbank, frame_padding).cpu())
        found.setdefault(("segments", "", 0), []).append(log_mel_segments(fbank, frame_padding).cpu())
    return {key: torch.cat(parts).numpy() for key, parts in found.items()}, np.array(rows)


def compare(model: Any, manifests: Path, crop_samples: int, seed: int, say: Callable[[str], None]) -> Comparison:
    """Probe the encoder, its untrained twin and the log-mel; every choice is made on the validation part."""
    models = {"pretrained": model, "untrained": untrained_twin(model, seed)}
    classes = Classes.read(manifests / "labels.csv")
    features, labels = {}, {}
    for split in SPLITS:
        manifest = Manifest.read(manifests / f"{split}.tsv")
        dataset = AudioDataset(manifest, sample_rate=model.settings.sample_rate, max_sample_size=crop_samples)
        features[split], rows = features_of_split(models, dataset)
        of_row = Labels.read(manifests / f"{split}.lbl", manifest, classes)
        labels[split] = np.array([of_row[row][0] for row in rows])
        say(f"  features of {len(rows)} {split} clips")
    answers = probe.Split(*(labels[split] for split in SPLITS))

    def best(kind: str, pooling: str) -> probe.ProbeResult:
        keys = [key for key in features["train"] if key[:2] == (kind, pooling)]
        candidates = {key[2]: probe.Split(*(features[split][key] for split in SPLITS)) for key in keys}
        return probe.linear_probe(candidates, answers)

    results = {(kind, pooling): best(kind, pooling) for kind in models for pooling in POOLINGS}
    results |= {("deviation", ""): best("deviation", ""), ("segments", ""): best("segments", "")}
    return _summary(results, answers, len(classes))


def _summary(results: dict[tuple[str, str], probe.ProbeResult], answers: probe.Split, classes: int) -> Comparison:
    names = {"pretrained": "BRIDLE encoder, pretrained", "untrained": "the same encoder, untrained"}
    rows = []
    chosen = {}
    for kind, name in names.items():
        chosen[kind] = max(POOLINGS, key=lambda pooling: results[kind, pooling].valid_score)
        for pooling in POOLINGS:
            result = results[kind, pooling]
            text = f"layer {result.candidate}, C = {result.settings['C']:g}"
            rows.append(Row(f"{name}: {POOLING_NAMES[pooling]}", result.score, text))
    for kind, name in (("deviation", "log-mel: mean and deviation"), ("segments", "log-mel: means of four segments")):
        result = results[kind, ""]
        rows.append(Row(name, result.score, f"C = {result.settings['C']:g}"))
    _, frequent = np.unique(answers.train, return_counts=True)
    guess = np.unique(answers.train)[frequent.argmax()]
    chance = float((answers.test == guess).mean())
    rows.append(Row("always the most frequent class", chance))
    max(rows, key=lambda row: row.accuracy).best = True
    return Comparison(
        rows,
        results["pretrained", chosen["pretrained"]].score,
        results["untrained", chosen["untrained"]].score,
        results["deviation", ""].score,
        chance,
        len(answers.test),
        classes,
    )
