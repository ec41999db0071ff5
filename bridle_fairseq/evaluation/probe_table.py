"""The comparison of several kinds of features by probes: one row for each, as a table and as files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.features import PATCHES, FeatureArray
from bridle_fairseq.data.artifacts.patch_rows import PatchRows
from bridle_fairseq.evaluation.probe import ProbeResult, Split, attentive_probe, knn_probe, linear_probe, ridge_probe
from bridle_fairseq.evaluation.scores import Outcome
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.spreadsheet import write_table

PROBES: dict[str, Callable[..., ProbeResult]] = {
    "linear": linear_probe,
    "ridge": ridge_probe,
    "knn": knn_probe,
    "attentive": attentive_probe,
}
ATTENTIVE = "attentive"
DEFAULT_PROBES = ("linear", "knn")


class ProbeRow(NamedTuple):
    """One probe of one kind of features."""

    features: str
    pooling: str
    probe: str
    layer: int  # chosen on validation; 0 if the features have no layers
    settings: dict[str, float]  # of the classifier, chosen on validation
    valid: float
    test: float
    interval: tuple[float, float] | None
    valid_of_layers: dict[int, float]
    at_end: bool = False  # the validation score still rose at the end of the range of the regularization
    outcomes: tuple[Outcome, ...] = ()  # of each test set: the test split, or the folds

    @property
    def name(self) -> str:
        """Features, pooling and probe, as text."""
        return f"{self.features}, {self.pooling}, {self.probe}"

    @property
    def chosen(self) -> str:
        """What was chosen on validation, as text."""
        layer = [f"layer {self.layer}"] if self.layer else []
        end = ["at the end of the range"] if self.at_end else []
        return ", ".join([*layer, *(f"{name} = {value:g}" for name, value in self.settings.items()), *end])


def compare(
    features: Mapping[FeatureArray, Split],
    labels: Split,
    probes: Sequence[str] = DEFAULT_PROBES,
    say: Callable[[str], object] = lambda text: None,
    device: str = "cpu",
    **options: Any,
) -> list[ProbeRow]:
    """Run each probe on each source and pooling of features; the layer is chosen on validation.

    Args:
        features: features of the rows of ``labels``.
        labels: see :mod:`bridle_fairseq.evaluation.probe`.
        probes: keys of :data:`PROBES`.
        say: called with a line before each probe.
        device: where the attentive probe is trained, which takes patches; the others take pooled features.
        options: options of the probes: ``refit``, ``resamples``, ``seed``.
    """
    kinds: dict[tuple[str, str], dict[int, Split]] = {}
    for array, split in features.items():
        kinds.setdefault((array.source, array.pooling), {})[array.layer] = split
    rows = []
    for (source, pooling), candidates in kinds.items():
        for probe in probes:
            if (probe == ATTENTIVE) != (pooling == PATCHES):
                continue
            say(f"{probe} probe of {source}, {pooling}")
            more = {"device": device} if probe == ATTENTIVE else {}
            result = PROBES[probe](candidates, labels, **options, **more)
            row = ProbeRow(
                features=source,
                pooling=pooling,
                probe=probe,
                layer=result.candidate,
                settings=result.settings,
                valid=result.valid_score,
                test=result.score,
                interval=result.interval,
                valid_of_layers=result.candidate_scores,
                at_end=result.at_end,
                outcomes=(result.outcome,),
            )
            rows.append(row)
    return rows


def table(rows: Sequence[ProbeRow], heading: str) -> str:
    """The rows as text below a heading, then the validation score of each layer."""
    with_interval = any(row.interval for row in rows)
    header = ["features", "pooling", "probe", "chosen on validation", "valid", "test"]
    lines = [header + ["95 % interval"] * with_interval]
    for row in rows:
        interval = "" if row.interval is None else "{:.3f} - {:.3f}".format(*row.interval)
        scores = [f"{row.valid:.3f}", f"{row.test:.3f}", *[interval] * with_interval]
        lines.append([row.features, row.pooling, row.probe, row.chosen, *scores])
    text = f"{heading}\n{aligned(lines)}"
    by_layer = [row for row in rows if len(row.valid_of_layers) > 1]
    if by_layer:
        layers = sorted(set().union(*(row.valid_of_layers for row in by_layer)))
        lines = [["validation by layer", *map(str, layers)]]
        for row in by_layer:
            scores_by_layer = row.valid_of_layers
            cells = (f"{scores_by_layer[layer]:.3f}" if layer in scores_by_layer else "" for layer in layers)
            lines.append([row.name, *cells])
        text += f"\n\n{aligned(lines)}"
    return text


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as text with aligned columns; columns of numbers are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numbers = [all(cell.replace(".", "").isdigit() or not cell for cell in column[1:]) for column in zip(*lines)]  # noqa: B905
    rows = []
    for line in lines:
        cells = zip(line, widths, numbers, strict=True)
        rows.append("  ".join(cell.rjust(n) if number else cell.ljust(n) for cell, n, number in cells).rstrip())
    return "\n".join(rows)


def write(
    rows: Sequence[ProbeRow], about: Mapping[str, Any], folder: str | os.PathLike[str], name: str = "probe"
) -> None:
    """Write ``{name}.csv``, a line for each row, and then ``{name}.json``, with the fields of ``about``.

    A fold with the json is not run again, so the json is the last file.
    """
    header = ["features", "pooling", "probe", "chosen", "valid", "test", "low", "high"]
    lines = (
        [row.features, row.pooling, row.probe, row.chosen, row.valid, row.test, *(row.interval or ("", ""))]
        for row in rows
    )
    write_table(Path(folder, f"{name}.csv"), [header, *lines])
    with atomic_text(Path(folder, f"{name}.json")) as file:
        json.dump({**about, "rows": [_fields(row) for row in rows]}, file, indent=2)
        file.write("\n")


def _fields(row: ProbeRow) -> dict[str, Any]:
    return {name: value for name, value in row._asdict().items() if name != "outcomes"}


def finite_rows(arrays: Mapping[Any, np.ndarray]) -> np.ndarray:
    """Whether each row could be read: True if it is not NaN in any array, and has patches."""
    readable = [a.counts > 0 if isinstance(a, PatchRows) else ~np.isnan(a[:, 0]) for a in arrays.values()]
    return np.logical_and.reduce(readable)
