"""Stages and learning rates."""

import math

import pytest

from bridle_fairseq.nn.schedule import Schedule, Stage
from bridle_fairseq.utils.errors import InputError

STAGES = [
    {"kind": "encoder", "updates": 10, "lr": 1.0, "warmup_updates": 4},
    {"kind": "tokenizer", "updates": 5, "warmup_updates": 0},
    {"kind": "joint", "updates": 20, "lr": 0.1, "warmup_updates": 2, "tokenizer_every": 3},
]


def test_updates_belong_to_stages():
    schedule = Schedule(STAGES)
    assert schedule.total_updates == 35
    assert schedule.starts == (0, 10, 15)
    assert [schedule.index_at(n) for n in (-1, 0, 9, 10, 14, 15, 34, 35, 1000)] == [0, 0, 0, 1, 1, 2, 2, 2, 2]


def test_learning_rate_warms_up_and_decays_to_zero_in_each_stage():
    schedule = Schedule(STAGES)
    assert [schedule.learning_rate(n, 9.0) for n in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule.learning_rate(7, 9.0) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert schedule.learning_rate(10, 9.0) == 9.0  # no rate of its own: the default
    assert schedule.learning_rate(15, 9.0) == pytest.approx(0.05)
    assert schedule.learning_rate(35, 9.0) == pytest.approx(0.0)


def test_learning_rate_falls_to_zero_in_a_single_update():
    schedule = Schedule([{"kind": "encoder", "updates": 5, "lr": 1.0, "warmup_updates": 4}])
    assert schedule.learning_rate(4, 9.0) == 1.0 and schedule.learning_rate(5, 9.0) == pytest.approx(0.0)


def test_defaults_of_a_stage():
    """Configurations of earlier runs rely on them."""
    expected = Stage("joint", 7, lr=None, warmup_updates=0, targets="auto", tokenizer_every=4, tokenizer_weight=0.2)
    assert Schedule([{"kind": "joint", "updates": 7}]).stages == (expected,) == (Stage("joint", 7),)


def test_largest_weight_of_the_tokenizer_loss():
    assert Schedule([{"kind": "joint", "updates": 7, "tokenizer_weight": 1e6}]).stages[0].tokenizer_weight == 1e6


def test_null_is_the_default_and_whole_numbers_may_be_written_as_floats():
    nothing = dict.fromkeys(("lr", "warmup_updates", "targets", "tokenizer_every", "tokenizer_weight"))
    (stage,) = Schedule([{"kind": "joint", "updates": 1e5, **nothing}]).stages
    assert repr(stage) == repr(Stage("joint", 100_000))


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([], "empty"),
        ([{"kind": "decoder", "updates": 3}], "'decoder'"),
        ([{"kind": "encoder"}], "updates"),
        ([{"kind": "encoder", "updates": 0}], "updates is 0; expected at least 1"),
        ([{"kind": "encoder", "updates": 3, "speed": 1}], "'speed'"),
        ([{"kind": "encoder", "updates": "many"}], r"model\.stages\[0\]\.updates is 'many'; expected at least 1"),
        ([{"kind": "encoder", "updates": "10"}], "updates is '10'"),
        ([{"kind": "encoder", "updates": True}], "updates is True"),
        ([{"kind": "encoder", "updates": 1.9}], "updates is 1.9"),
        ([{"kind": "encoder", "updates": float("inf")}], "updates is inf"),
        ([{"kind": "encoder", "updates": None}], "updates is None"),
        ([{"kind": "encoder", "updates": 3, "speed": None}], "'speed' is unknown; expected only kind, lr"),
        ([{"kind": "joint", "updates": 3, "tokenizer_weight": -1e300}], "tokenizer_weight is -1e\\+300; expected at"),
        (
            [{"kind": "encoder", "updates": 3, "warmup_updates": 4}],
            "warmup_updates is 4; expected at most the",
        ),
        ([{"kind": "encoder", "updates": 3, "warmup_updates": -1}], "warmup_updates is -1; expected"),
        ([{"kind": "joint", "updates": 3, "tokenizer_weight": 1000001}], "tokenizer_weight is 1000001; expected"),
        ([{"kind": "encoder", "updates": 3, "targets": "moon"}], "'moon'"),
        ([{"kind": "encoder", "updates": 3, "lr": -1}], "lr"),
        ([{"kind": "encoder", "updates": 3, "lr": -1e-9}], "lr is -1e-09"),
        ([{"kind": "encoder", "updates": 3, "lr": 0}], "lr is 0"),
        ([{"kind": "encoder", "updates": 3}, {"kind": "joint", "updates": 3, "tokenizer_every": 0}], r"stages\[1\]"),
    ],
)
def test_impossible_stages_are_errors(stages, words):
    with pytest.raises(InputError, match=words):
        Schedule(stages)
