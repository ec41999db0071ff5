"""Metrics against scikit-learn: ties, absent classes, undefined values."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.evaluation.classification import (
    MULTI_LABEL,
    SINGLE_LABEL,
    d_prime,
    evaluate,
    write_predictions,
    write_tables,
)
from bridle_fairseq.utils.errors import InputError

CLASSES = 9
ABSENT = [2, 7]


@pytest.fixture(params=range(3))
def random(request) -> np.random.Generator:
    return np.random.default_rng(request.param)


def tied_scores(random: np.random.Generator, clips: int = 120) -> np.ndarray:
    """Scores of few values: most of them tie with others."""
    return random.integers(0, 6, (clips, CLASSES)) / 5


def multi_hot(random: np.random.Generator, clips: int = 120) -> np.ndarray:
    truth = (random.random((clips, CLASSES)) < 0.2).astype(np.float32)
    truth[:, ABSENT] = 0
    return truth


def test_multi_label_metrics_with_ties_and_absent_classes(random) -> None:
    scores, truth = tied_scores(random), multi_hot(random)
    present = [number for number in range(CLASSES) if number not in ABSENT]
    found = evaluate(scores, truth)
    assert set(found.values) == set(MULTI_LABEL) and found.clips == 120 and found.absent == 2
    expected = sk.average_precision_score(truth[:, present], scores[:, present], average="macro")
    assert found.values["mAP"] == pytest.approx(expected, abs=1e-12)
    auc = sk.roc_auc_score(truth[:, present], scores[:, present], average="macro")
    assert found.values["mAUC"] == pytest.approx(auc, abs=1e-12)
    assert found.values["d_prime"] == pytest.approx(math.sqrt(2) * norm.ppf(auc), abs=1e-9)
    hits = [truth[row, scores[row].argmax()] for row in range(len(truth))]
    assert found.values["precision_at_1"] == pytest.approx(np.mean(hits))
    assert found.confusion is None
    assert np.isnan(found.classes.average_precision[ABSENT]).all() and np.isnan(found.classes.auc[ABSENT]).all()
    np.testing.assert_array_equal(found.classes.positives, truth.sum(0))


def test_single_label_metrics(random) -> None:
    scores = random.random((150, CLASSES))
    scores /= scores.sum(1, keepdims=True)
    targets = random.choice([number for number in range(CLASSES) if number not in ABSENT], 150)
    found = evaluate(scores, targets)
    assert set(found.values) == set(SINGLE_LABEL)
    assert found.values["accuracy"] == sk.accuracy_score(targets, scores.argmax(1))
    assert found.values["top5_accuracy"] == sk.top_k_accuracy_score(targets, scores, k=5, labels=range(CLASSES))
    one_against_all = [
        (sk.average_precision_score(targets == n, scores[:, n]), sk.roc_auc_score(targets == n, scores[:, n]))
        for n in np.unique(targets)
    ]
    expected = np.mean(one_against_all, axis=0)
    assert (found.values["mAP"], found.values["mAUC"]) == pytest.approx(tuple(expected), abs=1e-12)
    assert found.confusion is not None and found.confusion.sum() == 150
    np.testing.assert_array_equal(found.confusion.sum(1), found.classes.positives)
    assert found.confusion.trace() / 150 == found.values["accuracy"]
    recall = sk.recall_score(targets, scores.argmax(1), labels=range(CLASSES), average=None, zero_division=0)
    for n in np.unique(targets):
        assert found.classes.recall[n] == recall[n]


def test_ties_go_to_the_first_class() -> None:
    assert evaluate(np.full((4, 3), 0.3), np.array([0, 0, 1, 2])).values["accuracy"] == 0.5


def test_no_top5_accuracy_for_five_classes() -> None:
    assert "top5_accuracy" not in evaluate(np.eye(5), np.arange(5)).values


def test_undefined_metrics_are_omitted() -> None:
    only = evaluate(np.eye(3), np.zeros(3, dtype=int))
    assert set(only.values) == {"accuracy", "mAP"} and only.absent == 2
    nothing = evaluate(np.eye(3), np.zeros((3, 3)))
    assert set(nothing.values) == {"precision_at_1"} and nothing.absent == 3


def test_classes_with_a_score_of_half_or_more_are_predicted(tmp_path) -> None:
    scores = np.array([[0.5, 0.49], [0.9, 0.1], [0.1, 0.7], [0.2, 0.3]])
    found = evaluate(scores, np.array([[1, 1], [0, 0], [0, 1], [1, 0]])).classes
    assert found.precision.tolist() == [0.5, 1.0] and found.recall.tolist() == [0.5, 0.5]
    classes = Classes(["a", "b"], ["a", "b"])
    labels, manifest = Labels([[0, 1], [], [1], [0]], classes), Manifest(tmp_path, [*"wxyz"], [1] * 4)
    path = write_predictions(tmp_path, "valid", manifest, labels, np.arange(4), scores, multi_label=True)
    rows = list(csv.DictReader(open(path, newline="")))
    assert [(row["true"], row["predicted"]) for row in rows] == [("a,b", "a"), ("", "a"), ("b", "b"), ("a", "")]
    path = write_predictions(tmp_path, "valid", manifest, labels, np.array([1, 2]), scores[1:3], multi_label=False)
    assert [(row["row"], row["predicted"]) for row in csv.DictReader(open(path, newline=""))] == [
        ("1", "a"),
        ("2", "b"),
    ]


def test_d_prime_of_perfect_scores() -> None:
    assert d_prime(0.5) == 0 and d_prime(1.0) == math.inf and d_prime(0.0) == -math.inf
    values = evaluate(np.eye(3), np.arange(3)).values  # a clip for each class
    assert values["d_prime"] == math.inf and values["mAP"] == values["mAUC"] == 1


def test_non_finite_scores_are_refused() -> None:
    scores = np.eye(3)
    scores[1, 1] = np.nan
    with pytest.raises(InputError, match="scores of 1 of 3 clips are not finite"):
        evaluate(scores, np.arange(3))


def test_tables(tmp_path) -> None:
    classes = Classes(["a", "b", "c"], ["the a", "b, the second", "c"])
    scores = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0]])
    paths = write_tables(tmp_path / "new", "valid", evaluate(scores, np.array([0, 1, 1])), classes)
    assert [path.rsplit("/")[-1] for path in paths] == ["valid.classes.csv", "valid.confusion.csv"]
    table = list(csv.DictReader(open(paths[0], newline="")))
    assert [row["display_name"] for row in table] == classes.names
    assert table[1]["positives"] == "2" and table[1]["recall"] == "0.5" and table[1]["precision"] == "1"
    assert table[2]["positives"] == "0" and table[2]["average_precision"] == "" == table[2]["auc"]
    confusion = list(csv.reader(open(paths[1], newline="")))
    assert confusion == [["true\\predicted", "a", "b", "c"], ["a", "1", "0", "0"], ["b", "1", "1", "0"], list("c000")]
    assert len(write_tables(tmp_path, "test", evaluate(scores, np.eye(3)), classes)) == 1
