"""fairseq learning rate scheduler ``bridle_interleaved``: warm-up and cosine in each stage."""

from dataclasses import dataclass
from typing import Any, List

from fairseq.dataclass import FairseqDataclass
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II, OmegaConf

from bridle_fairseq.nn.schedule import Schedule


@dataclass
class BridleInterleavedConfig(FairseqDataclass):
    """Nothing of its own: the stages are the model's."""

    stages: Any = II("model.stages")
    lr: List[float] = II("optimization.lr")


@register_lr_scheduler("bridle_interleaved", dataclass=BridleInterleavedConfig)
class BridleInterleavedScheduler(FairseqLRScheduler):
    """The rate of update n (from 0) is set before it: linear warm-up, then a half cosine to 0, stage by stage."""

    def __init__(self, cfg, optimizer):
        super().__init__(cfg, optimizer)
        stages = OmegaConf.to_container(cfg.stages, resolve=True) if OmegaConf.is_config(cfg.stages) else cfg.stages
        self.schedule = Schedule(stages)
        self.step_update(0)

    def step_update(self, num_updates):
        """Set and return the learning rate of the next update."""
        self.optimizer.set_lr(self.schedule.learning_rate(num_updates, float(self.cfg.lr[0])))
        return self.optimizer.get_lr()

    def step(self, epoch, val_loss=None):
        """Epochs change nothing."""
        super().step(epoch, val_loss)
        return self.optimizer.get_lr()
