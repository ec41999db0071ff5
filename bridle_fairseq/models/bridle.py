"""fairseq model ``bridle``: encoder, decoder, tokenizer, quantizer, estimator, and the stages in which they learn."""

from contextlib import contextmanager
from dataclasses import dataclass, fields

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from omegaconf import II, OmegaConf

from bridle_fairseq.nn.bridle import Bridle, StepOutput
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings


@dataclass
class BridleConfig(BridleSettings, FairseqDataclass):
    """:class:`BridleSettings` as fairseq configuration; what the data decide comes from the task."""

    modality: str = II("task.modality")
    sample_rate: int = II("task.sample_rate")


def settings_from(cfg) -> BridleSettings:
    """The settings in a fairseq configuration, as the dataclass of the layer without fairseq."""
    found = plain(cfg) if OmegaConf.is_config(cfg) else dict(vars(cfg))
    return BridleSettings(**{f.name: found[f.name] for f in fields(BridleSettings) if f.name in found})


def plain(value):
    """A configuration's list or mapping as Python's own; anything else as it is."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


@register_model("bridle", dataclass=BridleConfig)
class BridleModel(Bridle, BaseFairseqModel):
    """:class:`Bridle` driven by fairseq's update numbers.

    Each update belongs to a stage. A stage's start is due exactly before its first update, so nothing about it needs
    to be remembered: a checkpoint written at a boundary, by an uninterrupted run or not, has the start still before it.
    """

    def __init__(self, cfg):
        super().__init__(settings_from(cfg))
        self.cfg = cfg
        self.schedule = self.settings.schedule()
        self.num_updates = 0
        self._began_at = None
        self._within_update = False

    @classmethod
    def build_model(cls, cfg, task):
        """Build the model of a configuration."""
        return cls(cfg)

    def set_num_updates(self, num_updates: int) -> None:
        """fairseq's trainer tells the number of finished updates, also on resume (before it loads the weights)."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates

    def train(self, mode: bool = True):
        """fairseq calls this at the start of every update: statistics of an update that was thrown away go here."""
        if mode and not self._within_update:
            self.discard()
        return super().train(mode)

    @contextmanager
    def within_update(self):
        """While a micro-batch is trained: fairseq's tasks call ``train()`` for each of them, the update goes on."""
        self._within_update = True
        try:
            yield
        finally:
            self._within_update = False

    @property
    def stage_index(self) -> int:
        """The stage of the next update; until that has begun, and in validation, the stage of the last one."""
        due = self.num_updates in self.schedule.starts and self._began_at != self.num_updates
        return self.schedule.index_at(self.num_updates - 1 if due else self.num_updates)

    @property
    def stage(self) -> Stage:
        """The stage of :attr:`stage_index`."""
        return self.schedule.stages[self.stage_index]

    @property
    def stage_update(self) -> int:
        """Finished updates of the stage."""
        return self.num_updates - self.schedule.starts[self.stage_index]

    def begin_update(self, num_updates: int) -> bool:
        """Before the forward passes of an update: begin its stage if it is the first one; True if it was."""
        self.num_updates = num_updates
        if num_updates not in self.schedule.starts or self._began_at == num_updates:
            return False
        self._began_at = num_updates
        self.begin_stage(self.stage)
        return True

    def newly_trained_parameters(self) -> set:
        """Parameters that learn in this stage and did not in the one before, or that it set anew.

        Their optimizer state starts fresh.
        """
        now = _parameters(self.trained_parts(self.stage))
        set_anew = self.stage.kind == "tokenizer" and self.settings.tokenizer_init != "continue"
        if self.stage_index == 0 or set_anew:
            return now
        return now - _parameters(self.trained_parts(self.schedule.stages[self.stage_index - 1]))

    def frozen_parameters(self) -> set:
        """Parameters that must not change in the present update."""
        return set(self.parameters()) - _parameters(self.trained_parts(self.stage, self.stage_update))

    def forward(self, source, padding_mask=None, codes=None) -> StepOutput:
        """Loss of a batch in the present stage (see :meth:`Bridle.forward`)."""
        return super().forward(source, padding_mask, self.stage, self.stage_update, codes)


def unwrapped(model) -> BridleModel:
    """The model inside what fairseq wraps around it for several processes (``legacy_ddp``: two wrappers)."""
    while not isinstance(model, BridleModel):
        model = model.module
    return model


def _parameters(modules) -> set:
    return {p for module in modules for p in module.parameters()}
