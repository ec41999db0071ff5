"""The clips on the demo's page: with their codes, with predictions, on a map, and beside their neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.demo.probing import Comparison
from bridle_fairseq.demo.report import ShownClip, SimilarClips
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.report.examples import Example, Items, Map, example, project
from bridle_fairseq.report.pictures import shown

SECONDS_SHOWN = 1.8  # preferred length of sounds
QUERIES, NEAREST = 3, 3
MOST_PLACES = 16  # on a circle
TEMPERATURE = 0.1  # of scores that are 1 for the right class, else 0


def chosen_rows(items: Items, codes: CachedCodes, count: int) -> list[int]:
    """Up to ``count`` clips of medium length that are readable; of different classes if there are labels."""
    patches = np.array([len(codes.segment_codes(row, 0)) for row in range(len(items.manifest))])
    grid, wanted = codes.info.grid, 0.0
    if "sample_rate" in grid:
        wanted = SECONDS_SHOWN * grid["sample_rate"] / 160 / grid["patch_frames"] * grid["frequency_patches"]
    chosen: dict[str | int, int] = {}
    for row in np.argsort(np.abs(patches - wanted), kind="stable").tolist():
        key = items.label(row) or row
        if len(chosen) < count and key not in chosen and patches[row] and items.dataset[row]["source"] is not None:
            chosen[key] = row
    return list(chosen.values())


def drawn(model: Bridle, items: Items, rows: Sequence[int]) -> list[Example]:
    """Clips with their codes and with predictions, by a model on the CPU."""
    return [
        example(model, items.manifest.relative_path(row), items.label(row), items.dataset[row]["source"], row)
        for row in rows
    ]


def maps(comparison: Comparison, test: Items) -> dict[str, Map]:
    """The test clips where the probes' scores place them: of the pretrained encoder, and of the baseline."""
    labels = [test.label(row) for row in comparison.test_rows]
    names = [test.manifest.relative_path(row) for row in comparison.test_rows]
    found = {}
    for name, outcome in comparison.outcomes.items():
        if len(comparison.columns) > MOST_PLACES:
            points, method = project(outcome.scores)
            found[name] = Map(points, labels, method, names)
        else:
            found[name] = between_classes(outcome.scores, comparison.columns)._replace(labels=labels, names=names)
    return found


def between_classes(scores: np.ndarray, classes: Sequence[str]) -> Map:
    """Points between the places of the classes on a circle, the nearer to a place the higher its score.

    Args:
        scores: n x C.
        classes: names of the C columns.
    """
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(classes)) / len(classes)
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # C x 2
    weights = np.exp((scores - scores.max(1, keepdims=True)) / TEMPERATURE)
    points = weights / weights.sum(1, keepdims=True) @ places
    return Map(points, [], "scores", places=dict(zip(classes, map(tuple, places.tolist()), strict=True)))


def neighbours(comparison: Comparison, test: Items, model: Bridle, seed: int) -> list[SimilarClips]:
    """Random test clips of different classes, with the clips of most similar scores by the pretrained encoder's probe.

    Similarity is the cosine of scores after each class's mean is subtracted.
    """
    scores = comparison.outcomes["pretrained"].scores
    scores = scores - scores.mean(0)
    unit = scores / np.maximum(np.linalg.norm(scores, axis=1, keepdims=True), 1e-12)

    def clip(number: int) -> ShownClip:
        row = comparison.test_rows[number]
        return ShownClip(test.label(row), test.manifest.relative_path(row), shown(model, test.dataset[row]["source"]))

    found: dict[str, SimilarClips] = {}
    for number in np.random.default_rng(seed).permutation(len(scores)).tolist():
        label = test.label(comparison.test_rows[number])
        if label in found:
            continue
        others = np.argsort(-(unit @ unit[number]), kind="stable")
        nearest = [clip(other) for other in others[others != number][:NEAREST].tolist()]
        found[label] = SimilarClips(clip(number), nearest)
        if len(found) == QUERIES:
            break
    return list(found.values())
