"""An encoder for mteb, with a data loader and in an evaluation of its own."""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np
import pytest
import torch

from bridle_fairseq import pretrained
from bridle_fairseq.utils.errors import InputError

RATES = (16000, 22050)


@pytest.fixture
def encoder_class():
    pytest.importorskip("mteb", reason="mteb is not installed: make adapters")
    return import_module("bridle_fairseq.adapters.mteb").MtebEncoder


def tone(number: int) -> dict:
    """A clip of class ``number % 3``, at one of two rates."""
    rate, random = RATES[number % 2], np.random.default_rng(number)
    hertz = 300 * 3 ** (number % 3) * (1 + 0.02 * random.standard_normal())
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(rate // 2) / rate) + 0.01 * random.standard_normal(rate // 2)
    return {"array": wave.astype(np.float32), "sampling_rate": rate}


def test_vectors_are_those_of_the_export(encoder_class, exported) -> None:
    rows, own = [{"audio": tone(number)} for number in (0, 2, 4, 1)], pretrained.load(exported / "encoder")
    encoder = encoder_class(str(exported / "encoder"), pooling="frequency")
    found = encoder.encode(torch.utils.data.DataLoader(rows, batch_size=2))  # the second batch has both rates
    for vector, row in zip(found, rows, strict=True):
        expected = own.embed([row["audio"]["array"]], row["audio"]["sampling_rate"], pooling="frequency")[0]
        np.testing.assert_allclose(vector, expected.numpy(), rtol=0, atol=1e-5)
    assert encoder.mteb_model_meta.name == "bridle_fairseq/encoder-frequency"
    with pytest.raises(InputError, match="rows with text; expected audio, as it is a model for sound"):
        encoder.encode(torch.utils.data.DataLoader([{"text": "a"}]))


def test_a_task_is_evaluated(encoder_class) -> None:
    import datasets
    import mteb
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    class Tones(AbsTaskClassification):
        metadata = TaskMetadata(
            name="Tones",
            description="three tones",
            reference="https://example.org",
            dataset={"path": "owner/tones", "revision": "0"},
            type="AudioClassification",
            category="a2c",
            modalities=["audio"],
            eval_splits=["test"],
            eval_langs=["zxx-Zxxx"],
            main_score="accuracy",
        )
        input_column_name, label_column_name, samples_per_label, n_experiments = "audio", "label", 4, 2

        def load_data(self, **_) -> None:
            splits = {"train": range(24), "test": range(24, 36)}
            rows = {name: [{"audio": tone(n), "label": n % 3} for n in numbers] for name, numbers in splits.items()}
            made = {name: datasets.Dataset.from_list(values) for name, values in rows.items()}
            self.dataset, self.data_loaded = datasets.DatasetDict(made), True

    encoder = encoder_class("bridle-small-audio", pooling="frequency_statistics", layer=4)
    done = mteb.evaluate(encoder, [Tones()], cache=None, overwrite_strategy="always", show_progress_bar=False)
    assert done.task_results[0].scores["test"][0]["main_score"] > 0.9


def test_without_mteb_the_sentence_says_so(monkeypatch) -> None:
    for name in [name for name in sys.modules if "mteb" in name.split(".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(InputError, match="bridle_fairseq.adapters.mteb needs mteb .*install it: pip install mteb"):
        import_module("bridle_fairseq.adapters.mteb")
