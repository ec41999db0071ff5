"""Criterion ``bridle_ctc``: loss per symbol, exact error rates over batches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics

import bridle_fairseq

bridle_fairseq.register()
pytest.importorskip("jiwer")

from bridle_fairseq.criterions.bridle_ctc import BridleCtcCriterion as Criterion  # noqa: E402
from bridle_fairseq.data.manifests.transcripts import SPECIAL, Vocabulary  # noqa: E402
from bridle_fairseq.nn.ctc import Emissions, ctc_loss  # noqa: E402

VOCABULARY = Vocabulary([*SPECIAL, "|", "A", "B"], "ltr")
LINES = ["A B | A |", "B | B A |", "A |"]  # references
HEARD = ["A B | B |", "B A |", "A | B |"]  # a substitution; a word less; a word more


def batch(rows: list[int]) -> tuple[dict, Emissions]:
    """Emissions whose likeliest path spells what was heard, and the references."""
    paths = [[n for symbol in VOCABULARY.numbers(HEARD[row]) for n in (symbol, 0)] for row in rows]
    lengths = torch.tensor([len(path) for path in paths])
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(path) for path in paths], batch_first=True, padding_value=5)
    targets = [torch.tensor(VOCABULARY.numbers(LINES[row])) for row in rows]
    sample = {"net_input": {}, "ntokens": 1, "nsentences": len(rows)}
    sample["target"] = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)
    sample["target_lengths"] = torch.tensor([len(target) for target in targets])
    return sample, Emissions(3.0 * torch.nn.functional.one_hot(padded, 7), lengths)


def step(rows: list[int], training: bool = False):
    sample, emissions = batch(rows)
    criterion = Criterion(SimpleNamespace(vocabulary=VOCABULARY)).train(training)
    return criterion(lambda: emissions, sample)


def logged(logs: list[dict]) -> dict[str, float]:
    with metrics.aggregate(new_root=True) as found:
        Criterion.reduce_metrics(logs)
    return found.get_smoothed_values()


def test_loss_and_error_rates() -> None:
    loss, size, log = step([0, 1, 2])
    sample, emissions = batch([0, 1, 2])
    assert size == 12
    torch.testing.assert_close(loss, ctc_loss(emissions, sample["target"], sample["target_lengths"]))
    values = logged([log])
    assert values["loss"] == pytest.approx(float(loss) / 12, abs=1e-4)
    assert values["wer"] == pytest.approx(3 / 5, abs=1e-5)
    assert values["uer"] == pytest.approx((1 + 2 + 2) / 12, abs=1e-5)


def test_micro_batches_add_up_to_the_batch() -> None:
    whole = logged([step([0, 1, 2])[2]])
    parts = [step(rows)[2] for rows in ([2], [0, 1])]
    nothing = {key: value * 0 for key, value in parts[0].items()}  # what fairseq makes of a rank's dummy batch
    summed = {key: sum(part[key] for part in [*parts, nothing]) for key in parts[0]}
    for logs in (parts, [*parts, nothing, {}], [summed]):
        values = logged(logs)
        for key in ("loss", "wer", "uer"):
            assert values[key] == pytest.approx(whole[key], abs=2e-4)
    assert Criterion.logging_outputs_can_be_summed() and logged([nothing]) == {}


def test_training_decodes_nothing() -> None:
    assert set(step([0], training=True)[2]) == {"loss", "sample_size", "ntokens", "nsentences"}
