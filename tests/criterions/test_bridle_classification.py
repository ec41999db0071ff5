"""Criterion ``bridle_classification``: losses against their formulas, exact averages over batches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.criterions.bridle_classification import BridleClassificationCriterion as Criterion  # noqa: E402
from bridle_fairseq.utils.errors import InputError  # noqa: E402

LOGITS = torch.randn(7, 4, generator=torch.Generator().manual_seed(3))
SINGLE = torch.tensor([0, 1, 2, 3, 0, 1, 2])
MULTI = torch.tensor(
    [[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1.0]]
)


def step(rows: slice, targets: torch.Tensor):
    return apply(Criterion(None), LOGITS[rows], targets[rows])


def apply(criterion, source, target):
    """The criterion with a model whose logits are its input."""
    sample = {"net_input": {"source": source, "padding_mask": None}, "target": target, "ntokens": 1}
    return criterion(lambda source, padding_mask: source, sample)


def logged(logs: list[dict]) -> dict[str, float]:
    with metrics.aggregate(new_root=True) as found:
        Criterion.reduce_metrics(logs)
    return found.get_smoothed_values()


def test_single_label_loss_and_accuracy() -> None:
    loss, count, log = step(slice(None), SINGLE)
    assert count == 7
    probability = LOGITS.softmax(1)[torch.arange(7), SINGLE]
    torch.testing.assert_close(loss, -probability.log().sum())
    values = logged([log])
    assert values["loss"] == pytest.approx(float(loss) / 7, abs=1e-4)
    assert values["accuracy"] == pytest.approx(float((LOGITS.argmax(1) == SINGLE).float().mean()), abs=1e-4)
    assert "precision_at_1" not in values


def test_multi_label_loss_and_precision() -> None:
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
def test_micro_batches_add_up_to_the_batch(targets) -> None:
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


@pytest.mark.parametrize("targets", [SINGLE, MULTI])
def test_evaluation_returns_scores_and_plain_loss(targets) -> None:
    criterion = Criterion(SimpleNamespace(classes=range(4)), label_smoothing=0.2, mixup=1.0).eval()
    loss, _, log = apply(criterion, LOGITS, targets)
    torch.testing.assert_close(loss, step(slice(None), targets)[0])
    scores = log.pop("scores")
    torch.testing.assert_close(scores, LOGITS.softmax(1) if targets.dim() == 1 else LOGITS.sigmoid())
    assert set(log) == {"loss", "sample_size", "nsentences", "ntokens"}
    assert {"loss"} <= set(logged([log])) and not {"accuracy", "precision_at_1"} & set(logged([log]))


def test_label_smoothing_values() -> None:
    loss, _, _ = apply(Criterion(None, label_smoothing=0.2), LOGITS, SINGLE)
    target = 0.8 * torch.eye(4)[SINGLE] + 0.2 / 4
    torch.testing.assert_close(loss, -(target * LOGITS.log_softmax(1)).sum())
    loss, _, _ = apply(Criterion(None, label_smoothing=0.2), LOGITS, MULTI)
    target, score = 0.8 * MULTI + 0.1, LOGITS.sigmoid()
    torch.testing.assert_close(loss, -(target * score.log() + (1 - target) * (1 - score).log()).mean(1).sum())


@pytest.mark.parametrize("targets", [SINGLE, MULTI])
def test_mixup_mixes_clips_and_their_labels(targets) -> None:
    """The model shows the clips' own labels, scaled up: mixed clips have their mixed labels as logits."""
    hot = torch.eye(4)[targets] if targets.dim() == 1 else targets
    criterion, seen = Criterion(SimpleNamespace(classes=range(4)), mixup=1.0, mixup_alpha=10.0), []
    criterion.loss = lambda logits, target, multi_label: seen.append((logits, target)) or logits.sum()
    torch.manual_seed(0)
    _, _, log = apply(criterion, hot, targets)
    ((logits, target),) = seen
    torch.testing.assert_close(logits, target)
    assert ((target > 0.01) & (target < 0.99)).any(1).sum() >= 4
    if targets.dim() == 1:
        assert log["correct"] == 7  # the class with the greater share


@pytest.mark.parametrize("frames", [(), (5,)])
def test_cutmix_mixes_pixels_and_labels(frames) -> None:
    """Images of one value each: what is seen of a value is its label's share."""
    criterion = Criterion(SimpleNamespace(classes=range(4)), mixup=1.0, cutmix=1.0)
    values = torch.arange(4.0)
    pixels = values.view(4, *[1] * (3 + len(frames))).expand(4, 3, *frames, 16, 16).contiguous()
    torch.manual_seed(3)
    net_input, target = criterion._mixed({"source": pixels, "padding_mask": None}, torch.arange(4))
    assert net_input["source"].shape == pixels.shape
    shown = net_input["source"][:, 0]
    if frames:  # all frames are cut alike
        assert (shown == shown[:, :1]).all()
        shown = shown[:, 0]
    shares = torch.stack([(shown == value).float().mean((1, 2)) for value in values], 1)
    torch.testing.assert_close(target, shares)
    assert ((target > 0) & (target < 1)).any(1).all() and net_input["padding_mask"] is None
    assert set(net_input["source"].unique().tolist()) <= set(values.tolist())  # cut, and not mixed besides


def test_mistakes_are_errors() -> None:
    for options, sentence in (
        ({"mixup": 1.5}, "criterion.mixup is 1.5; expected 0 to 1"),
        ({"label_smoothing": 1.0}, "criterion.label_smoothing is 1.0; expected 0 to 0.999"),
        ({"cutmix": -0.1}, "criterion.cutmix is -0.1; expected 0 to 1"),
        ({"mixup": 0.5, "mixup_alpha": 0.0}, "criterion.mixup_alpha is 0.0; expected more than 0"),
    ):
        with pytest.raises(InputError, match=sentence):
            Criterion(None, **options)
