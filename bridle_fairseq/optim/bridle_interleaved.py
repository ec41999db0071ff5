"""fairseq learning rate scheduler ``bridle_interleaved``: linear warm-up and cosine in each stage."""

from dataclasses import dataclass, field
from typing import Any, List, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II, OmegaConf

from bridle_fairseq.nn.schedule import Schedule
from bridle_fairseq.utils.errors import InputError, exit_on_input_error

LR_RULES = {"linear": 1.0, "sqrt": 0.5}


@dataclass
class BridleInterleavedConfig(FairseqDataclass):
    """Stages are the model's. Learning rates can be scaled with the number of clips per update."""

    lr_clips: int = field(
        default=0,
        metadata={"help": "clips per update for which the learning rates are given; 0: do not scale them"},
    )
    lr_rule: str = field(
        default="linear",
        metadata={
            "help": "with lr_clips: scale rates with the clips per update (linear), or with their square root (sqrt)"
        },
    )
    stages: Any = II("model.stages")
    lr: List[float] = II("optimization.lr")
    batch_size: Optional[int] = II("dataset.batch_size")
    update_freq: List[int] = II("optimization.update_freq")
    ranks: int = II("distributed_training.distributed_world_size")


@register_lr_scheduler("bridle_interleaved", dataclass=BridleInterleavedConfig)
class BridleInterleavedScheduler(FairseqLRScheduler):
    """Sets the learning rate before each update: linear warm-up, then half a cosine to 0, in each stage."""

    def __init__(self, cfg: BridleInterleavedConfig, optimizer: FairseqOptimizer) -> None:
        super().__init__(cfg, optimizer)
        stages: Any = cfg.stages
        if OmegaConf.is_config(stages):
            stages = OmegaConf.to_container(stages, resolve=True)
        self.schedule = Schedule(stages)
        with exit_on_input_error():
            self.factor = lr_factor(cfg)
        self.step_update(0)

    def step_update(self, num_updates: int) -> float:
        """Set and return the learning rate of the next update."""
        self.optimizer.set_lr(self.factor * self.schedule.learning_rate(num_updates, float(self.cfg.lr[0])))
        return self.optimizer.get_lr()

    def step(self, epoch: int, val_loss: float | None = None) -> float:
        """Epochs do not change the learning rate."""
        super().step(epoch, val_loss)
        return self.optimizer.get_lr()


def lr_factor(cfg: BridleInterleavedConfig) -> float:
    """Factor on all learning rates from ``lr_clips`` and ``lr_rule``.

    Source: Goyal et al. 2017 (arXiv 1706.02677) for linear, Malladi et al. 2022 (arXiv 2205.10287) for sqrt with Adam.

    Raises:
        InputError: an unknown rule, or the number of clips per update varies.
    """
    if cfg.lr_rule not in LR_RULES:
        raise InputError(f"lr_scheduler.lr_rule is {cfg.lr_rule!r}; expected one of {', '.join(LR_RULES)}")
    if not cfg.lr_clips:
        return 1.0
    if cfg.lr_clips < 0:
        raise InputError(f"lr_scheduler.lr_clips is {cfg.lr_clips}; expected a number of clips, or 0")
    if not cfg.batch_size or len(set(cfg.update_freq)) != 1:
        raise InputError(
            f"lr_scheduler.lr_clips with dataset.batch_size {cfg.batch_size} and optimization.update_freq "
            f"{list(cfg.update_freq)}; expected a batch_size and one update_freq, or updates have no one size"
        )
    return (cfg.batch_size * cfg.update_freq[0] * cfg.ranks / cfg.lr_clips) ** LR_RULES[cfg.lr_rule]
