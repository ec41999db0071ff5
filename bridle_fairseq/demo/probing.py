"""The demo's comparison: linear probes of the pretrained encoder, of a randomly initialized one, and of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bridle_fairseq.demo.report import ResultRow
from bridle_fairseq.evaluation import probe_table
from bridle_fairseq.evaluation.probe_data import (
    ProbeData,
    extract_splits,
    probe_data,
    probe_extractors,
    read_labelled_splits,
)
from bridle_fairseq.evaluation.probe_table import ProbeRow
from bridle_fairseq.inference.chunking import ChunkOptions, choose_chunking
from bridle_fairseq.inference.pipeline import BatchOptions
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.pooling_kinds import POOLINGS

if TYPE_CHECKING:
    from bridle_fairseq.tasks.base import MediaTask

SPLITS = ("train", "valid", "test")
STATISTICS_NAMES = {"deviation": "mean and deviation", "segments": "means of four segments"}  # of the log-mel
SOURCE_NAMES = {"encoder": "BRIDLE encoder, pretrained", "untrained": "the same encoder, untrained"}


class Comparison(NamedTuple):
    """Accuracies on the test split."""

    rows: list[ResultRow]
    pretrained: float  # of the pretrained encoder, with the pooling that validates best
    untrained: float  # likewise of the randomly initialized one
    baseline: float  # likewise of statistics of the input
    chance: float  # of always predicting the most frequent class
    test_clips: int
    classes: int


def compare(model: Bridle, task: MediaTask, manifests: Path, seed: int, say: Callable[[str], object]) -> Comparison:
    """Probe the encoder and its baselines; every choice is made on the validation split."""
    options = BatchOptions(workers=2, max_skipped=1.0, device=str(next(model.parameters()).device))
    splits = read_labelled_splits(manifests, SPLITS)
    poolings = ("mean", "statistics" if model.front_end.rows is None else "frequency_statistics")
    extractors = probe_extractors(model, range(1, model.encoder.depth + 1), poolings, seed)
    features = extract_splits(
        extractors,
        choose_chunking(ChunkOptions(), model.front_end, task.cfg),
        splits,
        options,
        on_split=lambda name, clips: say(f"  features of {clips} {name} clips"),
    )
    data = probe_data(features, splits, SPLITS, manifests)
    rows = probe_table.compare(data.features, data.labels, ["linear"])
    return _comparison(rows, data, len(splits["train"].labels.classes))


def _comparison(probes: Sequence[ProbeRow], data: ProbeData, classes: int) -> Comparison:
    rows = []
    best: dict[str, ProbeRow] = {}
    for probe in probes:
        of_encoder = probe.features in SOURCE_NAMES
        kind = probe.features if of_encoder else "baseline"
        if kind not in best or probe.valid > best[kind].valid:
            best[kind] = probe
        pooling = POOLINGS[probe.pooling].text if of_encoder else STATISTICS_NAMES.get(probe.pooling, probe.pooling)
        name = f"{SOURCE_NAMES.get(probe.features, probe.features)}: {pooling}"
        rows.append(ResultRow(name, probe.test, probe.chosen))
    chance = data.majority_accuracy()
    rows.append(ResultRow("always the most frequent class", chance))
    max(rows, key=lambda row: row.accuracy).best = True
    return Comparison(
        rows,
        pretrained=best["encoder"].test,
        untrained=best["untrained"].test,
        baseline=best["baseline"].test,
        chance=chance,
        test_clips=len(data.labels.test),
        classes=classes,
    )
