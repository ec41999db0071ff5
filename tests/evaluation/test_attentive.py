"""The attentive probe: attention as written in full, padding, choices, and what mean pooling cannot see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bridle_fairseq.data.artifacts.patch_rows import PatchRows
from bridle_fairseq.evaluation import attentive as module
from bridle_fairseq.evaluation.attentive import AttentiveHead, attentive
from bridle_fairseq.evaluation.probe import Split, attentive_probe, ridge_probe

SETTINGS = {"lr": 3e-2, "weight_decay": 0.01}


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    monkeypatch.setattr(module, "UPDATES", 60)
    monkeypatch.setattr(module, "EPOCHS", 1)


def clips(count: int, seed: int) -> tuple[PatchRows, np.ndarray]:
    """Patches of two classes: one patch is marked by its first value, and its second says the class.

    The others of a clip cancel the second value, so the mean of the patches is the same in both classes.
    """
    rng = np.random.default_rng(seed)
    counts, labels, rows = rng.integers(4, 9, count), np.arange(count) % 2, []
    for number, label in zip(counts, labels, strict=True):
        patches = 0.1 * rng.normal(size=(number, 8))
        sign = 2.0 * label - 1
        patches[:, 1] -= sign / (number - 1)
        marked = rng.integers(number)
        patches[marked, 0], patches[marked, 1] = 3.0, sign
        rows.append(patches)
    return PatchRows.of_counts(np.concatenate(rows).astype(np.float16), counts), labels


@pytest.fixture(scope="module")
def splits() -> tuple[Split, Split]:
    parts = [clips(count, seed) for seed, count in enumerate((80, 40, 60))]
    return Split(*(part[0] for part in parts)), Split(*(part[1] for part in parts))


def test_head_is_cross_attention_written_in_full() -> None:
    torch.manual_seed(0)
    model = AttentiveHead(torch.randn(128), torch.rand(128) + 0.5, 3)
    assert model.heads == 2
    torch.nn.init.normal_(model.query)
    x, padding = torch.randn(4, 6, 128), torch.arange(6) >= torch.tensor([[6], [4], [1], [3]])
    scaled = (x - model.mean) / model.deviation
    keys, values = (layer(scaled).unflatten(-1, (2, 64)).transpose(1, 2) for layer in (model.key, model.value))
    attended = torch.nn.functional.scaled_dot_product_attention(
        model.query[None, :, None].expand(4, -1, -1, -1), keys, values, attn_mask=~padding[:, None, None]
    )
    expected = model.head(attended[:, :, 0].flatten(1))
    torch.testing.assert_close(model(x, padding), expected, rtol=1e-4, atol=1e-5)


def test_attention_sees_what_the_mean_does_not(splits) -> None:
    patches, labels = splits
    result = attentive_probe({6: patches}, labels, learning_rates=[3e-2], weight_decays=[0.01], resamples=20)
    assert result.score > 0.95 and result.candidate == 6 and result.settings == SETTINGS
    assert result.interval is not None and len(result.outcome.scores) == 60
    means = Split(*(np.stack([row.astype(np.float64).mean(0) for row in part]) for part in patches))
    assert ridge_probe({6: means}, labels).score < 0.7


def test_equal_seeds_give_equal_results_and_draw_nothing_else(splits) -> None:
    patches, labels = splits
    targets = np.eye(2)[labels.train]
    state = torch.get_rng_state()
    scores = [attentive(seed, "cpu", patches.train, targets, False, [])(SETTINGS)(patches.test) for seed in (1, 1, 2)]
    assert np.array_equal(scores[0], scores[1]) and not np.allclose(scores[0], scores[2])
    assert torch.equal(torch.get_rng_state(), state)
    alone = np.concatenate([attentive_scores(scores_of) for scores_of in [(patches, targets, row) for row in range(3)]])
    np.testing.assert_allclose(alone, scores[0][:3], atol=1e-5)  # whatever else is in the batch


def attentive_scores(case) -> np.ndarray:
    patches, targets, row = case
    return attentive(1, "cpu", patches.train, targets, False, [])(SETTINGS)(patches.test[np.array([row])])


def test_learning_rate_is_chosen_on_validation(splits) -> None:
    patches, labels = splits
    result = attentive_probe({1: patches}, labels, learning_rates=[1e-6, 3e-2], weight_decays=[0.01])
    assert result.settings["lr"] == 3e-2


def test_several_classes_are_scored_by_map(splits) -> None:
    patches, labels = splits
    targets = Split(*(np.stack([part, 1 - part, np.ones_like(part)], 1) for part in labels))
    result = attentive_probe({1: patches}, targets, learning_rates=[3e-2], weight_decays=[0.01])
    assert result.score > 0.95 and ((result.outcome.scores >= 0) & (result.outcome.scores <= 1)).all()


def test_statistics_are_those_of_all_patches(splits) -> None:
    mean, deviation = module._statistics(splits[0].train)
    values = splits[0].train.values.astype(np.float64)
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(deviation, values.std(0), rtol=1e-5)
