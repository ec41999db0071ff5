"""The criterion ``bridle_classification``: losses by their formulas, and averages that are exact however clips lie."""

from __future__ import annotations

import pytest
import torch
from fairseq.logging import metrics

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.criterions.bridle_classification import BridleClassificationCriterion as Criterion  # noqa: E402

LOGITS = torch.randn(7, 4, generator=torch.Generator().manual_seed(3))
SINGLE = torch.tensor([0, 1, 2, 3, 0, 1, 2])
MULTI = torch.tensor(
    [[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1.0]]
)


def step(rows: slice, targets: torch.Tensor):
    sample = {"net_input": {"source": LOGITS[rows]}, "target": targets[rows], "ntokens": 1}
    return Criterion(None)(lambda source: source, sample)


def logged(logs: list[dict]) -> dict[str, float]:
    with metrics.aggregate(new_root=True) as found:
        Criterion.reduce_metrics(logs)
    return found.get_smoothed_values()


def test_one_class_a_clip() -> None:
    loss, count, log = step(slice(None), SINGLE)
    assert count == 7
    probability = LOGITS.softmax(1)[torch.arange(7), SINGLE]
    torch.testing.assert_close(loss, -probability.log().sum())
    values = logged([log])
    assert values["loss"] == pytest.approx(float(loss) / 7, abs=1e-4)
    assert values["accuracy"] == pytest.approx(float((LOGITS.argmax(1) == SINGLE).float().mean()), abs=1e-4)
    assert "precision_at_1" not in values


def test_any_number_of_classes() -> None:
    loss, count, log = step(slice(None), MULTI)
    assert count == 7
    probability = LOGITS.double().sigmoid()
    expected = -(MULTI * probability.log() + (1 - MULTI) * (1 - probability).log()).mean(1).sum()
    torch.testing.assert_close(loss, expected.float())
    values = logged([log])
    hits = sum(float(MULTI[row, LOGITS[row].argmax()]) for row in range(7))
    assert values["precision_at_1"] == pytest.approx(hits / 7, abs=1e-4)
    assert "accuracy" not in values


@pytest.mark.parametrize("targets", [SINGLE, MULTI])
def test_parts_of_any_size_add_up_to_the_whole(targets) -> None:
    whole = logged([step(slice(None), targets)[2]])
    parts = [step(rows, targets)[2] for rows in (slice(0, 1), slice(1, 6), slice(6, 7))]
    nothing = {key: value * 0 for key, value in parts[0].items()}  # what fairseq makes of a rank's dummy batch
    summed = {key: sum(part[key] for part in [*parts, nothing]) for key in parts[0]}
    for logs in (parts, [*parts, nothing], [summed]):
        values = logged(logs)
        assert {key: values[key] for key in whole if "per_second" not in key} == pytest.approx(
            {key: value for key, value in whole.items() if "per_second" not in key}, abs=2e-4
        )
    assert Criterion.logging_outputs_can_be_summed()
    assert logged([nothing]) == {}
