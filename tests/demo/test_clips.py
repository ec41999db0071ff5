"""The clips on the demo's page: which are chosen, where the map has them, and their neighbours."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bridle_fairseq.demo import clips
from bridle_fairseq.demo.probing import Comparison
from bridle_fairseq.evaluation.scores import Difference, Outcome
from bridle_fairseq.report import figures

CLASSES = ["north", "east", "south", "west"]


class Items:
    """Stands in for the clips of a manifest, of two classes in turn."""

    labels = object()
    manifest = SimpleNamespace(relative_path=lambda row: f"{row}.wav")
    dataset = [{"source": torch.zeros(16)}] * 9

    def label(self, row: int) -> str:
        return CLASSES[row % 2]


def comparison(scores: np.ndarray) -> Comparison:
    none = Difference(0.0, 0.0, 0.0)
    outcomes = {name: Outcome(scores, np.zeros_like(scores)) for name in ("pretrained", "baseline")}
    rows = list(range(1, len(scores) + 1))  # the first clip cannot be read
    return Comparison([], 1, 0, 0, none, none, 0.5, len(scores), 2, {}, outcomes, CLASSES[: scores.shape[1]], rows)


def test_a_clip_lies_at_the_class_that_is_sure_and_in_the_middle_if_none_is() -> None:
    scores = np.concatenate([9 * np.eye(4), np.full((1, 4), 0.3)])
    found = clips.between_classes(scores, CLASSES)
    assert list(found.places) == CLASSES
    expected = [(0, 1), (1, 0), (0, -1), (-1, 0), (0, 0)]
    np.testing.assert_allclose(found.points, expected, atol=1e-9)
    np.testing.assert_allclose(list(found.places.values()), expected[:4], atol=1e-9)


@pytest.mark.parametrize("classes", [2, 4])
def test_maps_name_their_clips_and_draw_the_classes(classes: int) -> None:
    scores = np.random.default_rng(0).normal(size=(8, classes))
    found = clips.maps(comparison(scores), Items())["baseline"]
    assert found.labels == [CLASSES[row % 2] for row in range(1, 9)] and found.names[0] == "1.wav"
    text = figures.scatter(found)
    assert text.count("<text") == classes and "<title>east: 1.wav</title>" in text


def test_many_classes_are_projected(monkeypatch) -> None:
    monkeypatch.setattr(clips, "MOST_PLACES", 3)
    scores = np.random.default_rng(0).normal(size=(8, 4))
    found = clips.maps(comparison(scores), Items())["pretrained"]
    assert not found.places and found.method == "PCA" and found.points.shape == (8, 2)


def test_neighbours_are_the_clips_of_most_similar_scores(monkeypatch) -> None:
    monkeypatch.setattr(clips, "shown", lambda model, source: "<b>heard</b>")
    direction = np.repeat(np.eye(4)[:2], 4, axis=0)[[0, 4, 1, 5, 2, 6, 3, 7]]  # two groups, in turn
    scores = direction + np.random.default_rng(0).normal(scale=0.01, size=(8, 4))
    found = clips.neighbours(comparison(scores), Items(), None, seed=1)
    assert {query.label for query, _ in found} == {"north", "east"}
    for query, nearest in found:
        assert [clip.label for clip in nearest] == [query.label] * 3
        assert query.name not in [clip.name for clip in nearest] and query.html == "<b>heard</b>"
    assert found == clips.neighbours(comparison(scores), Items(), None, seed=1)
