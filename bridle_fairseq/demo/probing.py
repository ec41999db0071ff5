"""The demo's comparison: linear probes of the pretrained encoder, of a randomly initialized one, and of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bridle_fairseq.demo.report import ResultRow
from bridle_fairseq.evaluation import paired, probe_table
from bridle_fairseq.evaluation.probe_data import (
    ProbeData,
    extract_splits,
    probe_data,
    probe_extractors,
    read_labelled_splits,
)
from bridle_fairseq.evaluation.probe_table import ProbeRow, finite_rows
from bridle_fairseq.evaluation.scores import Difference, Outcome
from bridle_fairseq.inference.chunking import ChunkOptions, choose_chunking
from bridle_fairseq.inference.pipeline import BatchOptions
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.pooling_kinds import POOLINGS

if TYPE_CHECKING:
    from bridle_fairseq.tasks.base import MediaTask

PROBE = "ridge"  # linear, in seconds
RESAMPLES = 1000  # bootstrap over the test clips
SPLITS = ("train", "valid", "test")
STATISTICS_NAMES = {"deviation": "mean and deviation", "segments": "means of four segments"}  # of the log-mel
SOURCE_NAMES = {"encoder": "BRIDLE encoder, pretrained", "untrained": "the same encoder, untrained"}


class Comparison(NamedTuple):
    """Accuracies on the test split."""

    rows: list[ResultRow]
    pretrained: float  # of the pretrained encoder, with the pooling that validates best
    untrained: float  # likewise of the randomly initialized one
    baseline: float  # likewise of statistics of the input
    minus_untrained: Difference  # pretrained - untrained, on the same clips
    minus_baseline: Difference  # pretrained - baseline
    chance: float  # of always predicting the most frequent class
    test_clips: int
    classes: int
    intervals: dict[str, tuple[float, float] | None] = {}  # of the three accuracies, by their names above
    outcomes: dict[str, Outcome] = {}  # what the probes of ``pretrained`` and ``baseline`` say of the test clips
    columns: Sequence[str] = ()  # classes of the scores
    test_rows: Sequence[int] = ()  # the test clips in their manifest


def compare(model: Bridle, task: MediaTask, manifests: Path, seed: int, say: Callable[[str], object]) -> Comparison:
    """Probe the encoder and its baselines; every choice is made on the validation split."""
    options = BatchOptions(workers=2, max_skipped=1.0, device=str(next(model.parameters()).device))
    splits = read_labelled_splits(manifests, SPLITS)
    poolings = ("mean", "class_token") if model.front_end.rows is None else ("frequency", "frequency_statistics")
    extractors = probe_extractors(model, range(1, model.encoder.depth + 1), poolings, seed)
    features = extract_splits(
        extractors,
        choose_chunking(ChunkOptions(), model.front_end, task.cfg),
        splits,
        options,
        on_split=lambda name, clips: say(f"  features of {clips} {name} clips"),
    )
    data = probe_data(features, splits, SPLITS, manifests)
    rows = probe_table.compare(data.features, data.labels, [PROBE], resamples=RESAMPLES, seed=seed)
    compared = _comparison(rows, data, len(splits["train"].labels.classes), seed)
    names, train = splits["train"].labels.classes.names, data.labels.train
    numbers = range(train.shape[1]) if data.multi_label else np.unique(train).tolist()
    return compared._replace(
        columns=[names[number] for number in numbers],
        test_rows=np.flatnonzero(finite_rows(features["test"])).tolist(),
    )


def _comparison(probes: Sequence[ProbeRow], data: ProbeData, classes: int, seed: int) -> Comparison:
    rows = []
    for probe in probes:
        of_encoder = probe.features in SOURCE_NAMES
        pooling = POOLINGS[probe.pooling].text if of_encoder else STATISTICS_NAMES.get(probe.pooling, probe.pooling)
        name = f"{SOURCE_NAMES.get(probe.features, probe.features)}: {pooling}"
        rows.append(ResultRow(name, probe.test, probe.chosen))
    chance = data.majority_accuracy()
    rows.append(ResultRow("always the most frequent class", chance))
    max(rows, key=lambda row: row.accuracy).best = True
    best = paired.best_rows(probes, PROBE)
    named = {"pretrained": paired.ENCODER, "untrained": paired.UNTRAINED, "baseline": paired.BASELINE}
    minus = {one.second.name: one.difference for one in paired.comparisons(probes, data.multi_label, RESAMPLES, seed)}
    return Comparison(
        rows,
        pretrained=best[paired.ENCODER].test,
        untrained=best[paired.UNTRAINED].test,
        baseline=best[paired.BASELINE].test,
        minus_untrained=minus[best[paired.UNTRAINED].name],
        minus_baseline=minus[best[paired.BASELINE].name],
        chance=chance,
        test_clips=len(data.labels.test),
        classes=classes,
        intervals={name: best[kind].interval for name, kind in named.items()},
        outcomes={name: best[kind].outcomes[0] for name, kind in named.items() if name != "untrained"},
    )
