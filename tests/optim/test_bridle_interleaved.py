"""The scheduler sets the learning rates of the stages."""

import pytest
import torch
from fairseq.optim import build_optimizer
from fairseq.optim.lr_scheduler import build_lr_scheduler
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

STAGES = [{"kind": "encoder", "updates": 4, "lr": 1.0, "warmup_updates": 2}, {"kind": "tokenizer", "updates": 2}]


@pytest.fixture
def optimizer():
    cfg = {"_name": "bridle_adamw", "adam_betas": [0.9, 0.95], "adam_eps": 1e-8, "weight_decay": 0.0, "lr": [9.0]}
    return build_optimizer(OmegaConf.create(cfg), [torch.nn.Parameter(torch.ones(2, 2))])


@pytest.fixture(params=["from a configuration", "from a list"])
def scheduler(request, optimizer):
    cfg = OmegaConf.create({"_name": "bridle_interleaved", "stages": STAGES, "lr": [0.2]})
    if request.param == "from a list":
        cfg._set_flag("allow_objects", True)
        cfg.stages = STAGES
    return build_lr_scheduler(cfg, optimizer)


def test_first_rate_is_set_before_the_first_update(scheduler, optimizer):
    assert optimizer.get_lr() == 0.5


def test_rates_follow_the_stages(scheduler, optimizer):
    rates = []
    for update in range(7):
        assert scheduler.step_update(update) == optimizer.get_lr()
        rates.append(optimizer.get_lr())
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.2, 0.1, 0.0])


def test_epochs_do_not_change_the_rate(scheduler, optimizer):
    scheduler.step_update(3)
    scheduler.step_begin_epoch(7)
    assert scheduler.step(7, val_loss=1.0) == optimizer.get_lr() == pytest.approx(0.5)


def build(optimizer, batch_size=16, update_freq=(4,), ranks=8, **changes):
    root = {
        "lr_scheduler": {"_name": "bridle_interleaved", **changes},
        "model": {"stages": STAGES},
        "optimization": {"lr": [0.2], "update_freq": list(update_freq)},
        "dataset": {"batch_size": batch_size},
        "distributed_training": {"distributed_world_size": ranks},
    }
    return build_lr_scheduler(OmegaConf.create(root).lr_scheduler, optimizer)


@pytest.mark.parametrize(("rule", "factor"), [("linear", 0.25), ("sqrt", 0.5)])
def test_rates_scale_with_clips_per_update(optimizer, rule, factor):
    """16 x 4 x 8 of 2048 clips; stages with a rate of their own and without."""
    scheduler = build(optimizer, lr_clips=2048, lr_rule=rule)
    assert optimizer.get_lr() == pytest.approx(0.5 * factor)
    assert [scheduler.step_update(update) for update in (1, 4)] == pytest.approx([factor, 0.2 * factor])


def test_rates_are_unscaled_without_lr_clips(optimizer):
    assert build(optimizer).step_update(1) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_rule": "cube"}, "lr_rule is 'cube'; expected one of linear, sqrt"),
        ({"lr_clips": -1}, "lr_clips is -1"),
        ({"lr_clips": 64, "batch_size": None}, "batch_size None"),
        ({"lr_clips": 64, "update_freq": [1, 2]}, "update_freq [1, 2]"),
    ],
)
def test_impossible_lr_rules_are_errors(optimizer, capsys, options, message):
    with pytest.raises(SystemExit):
        build(optimizer, **options)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
