"""Choices for extractors: layers, poolings, a copy with random weights."""

from __future__ import annotations

import pytest
import torch

from bridle_fairseq.inference.extractors import choose_layers, default_poolings, random_init_copy
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

SMALL = dict(encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
SMALL |= dict(tokenizer_depth=1, estimator_depth=1, codebook_size=8)


def test_layers_by_number_all_or_last() -> None:
    assert choose_layers(["all"], 3) == [1, 2, 3]
    assert choose_layers(["last", "1,2"], 3) == choose_layers(["3", "2", "1", "1"], 3) == [1, 2, 3]
    for text in ("0", "4", "first", ""):
        with pytest.raises(InputError, match="--layers has"):
            choose_layers([text], 3)


def test_default_poolings_of_each_modality() -> None:
    assert default_poolings(Bridle(BridleSettings(**SMALL))) == (
        *("mean", "statistics", "frequency", "frequency_statistics"),
    )
    assert default_poolings(Bridle(BridleSettings(**SMALL, modality="image"))) == (
        *("mean", "statistics", "class_token", "regions"),
    )


def test_random_init_copy_depends_on_the_seed_only() -> None:
    model = Bridle(BridleSettings(**SMALL))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    copies = [random_init_copy(model, seed).encoder.state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(copies[0][name], copies[1][name]) for name in copies[0])
    assert not all(torch.equal(copies[0][name], copies[2][name]) for name in copies[0])
