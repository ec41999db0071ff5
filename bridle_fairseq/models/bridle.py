"""fairseq model ``bridle``: the whole method, and where a run is in its stages."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from fairseq.tasks import FairseqTask
from omegaconf import II, OmegaConf
from torch import Tensor, nn

from bridle_fairseq.nn.bridle import Bridle, StepOutput
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings


@dataclass
class BridleConfig(BridleSettings, FairseqDataclass):
    """:class:`BridleSettings` as fairseq configuration; modality and sample rate come from the task."""

    modality: str = II("task.modality")
    sample_rate: int = II("task.sample_rate")


def settings_from(cfg: Any) -> BridleSettings:
    """The :class:`BridleSettings` in a fairseq configuration."""
    values = plain(cfg) if OmegaConf.is_config(cfg) else dict(vars(cfg))
    return BridleSettings(**{f.name: values[f.name] for f in fields(BridleSettings) if f.name in values})


def plain(value: Any) -> Any:
    """A list or mapping of a configuration as plain Python; any other value unchanged."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def run_config(cfg: Any) -> Any:
    """The configuration of the run that a task's configuration is part of; {} for a task without a run."""
    return cfg._get_root() if hasattr(cfg, "_get_root") else {}


@register_model("bridle", dataclass=BridleConfig)
class BridleModel(Bridle, BaseFairseqModel):
    """:class:`Bridle` driven by fairseq's update numbers; :mod:`bridle_fairseq.tasks.stages` applies the stages.

    A stage begins right before its first update. A checkpoint written between two stages therefore still belongs to the
    stage that ended, and the stage of a resumed run follows from the update number alone.

    Attributes:
        num_updates: number of finished updates.
        begun_at: value of ``num_updates`` when a stage last began in this process.
    """

    def __init__(self, cfg: BridleConfig) -> None:
        super().__init__(settings_from(cfg))
        self.cfg = cfg
        self.schedule = self.settings.schedule()
        self.num_updates = 0
        self.begun_at: int | None = None
        self._within_update = False

    @classmethod
    def build_model(cls, cfg: BridleConfig, task: FairseqTask) -> "BridleModel":
        """Build the model of a configuration."""
        return cls(cfg)

    def set_num_updates(self, num_updates: int) -> None:
        """fairseq calls this after every update, and on resuming before it loads the weights."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates

    def train(self, mode: bool = True) -> "BridleModel":
        """fairseq calls this at the start of every update; drop the statistics of an update that was skipped."""
        if mode and not self._within_update:
            self.discard()
        return super().train(mode)

    @contextmanager
    def within_update(self) -> Iterator[None]:
        """Use around a micro-batch: fairseq calls ``train()`` for each one, which does not start a new update."""
        self._within_update = True
        try:
            yield
        finally:
            self._within_update = False

    @property
    def stage_index(self) -> int:
        """Index of the present stage. Between two stages, as in validation, it is that of the last update."""
        next_stage_not_begun = self.num_updates in self.schedule.starts and self.begun_at != self.num_updates
        return self.schedule.index_at(self.num_updates - 1 if next_stage_not_begun else self.num_updates)

    @property
    def stage(self) -> Stage:
        """The present stage."""
        return self.schedule.stages[self.stage_index]

    @property
    def stage_update(self) -> int:
        """Number of finished updates of the present stage."""
        return self.num_updates - self.schedule.starts[self.stage_index]

    def forward(  # type: ignore[override]  # without the stage, which this model knows
        self, source: Tensor, padding_mask: Tensor | None = None, codes: Tensor | None = None
    ) -> StepOutput:
        """Loss of a batch in the present stage (see :meth:`Bridle.forward`)."""
        return super().forward(source, padding_mask, self.stage, self.stage_update, codes)


def unwrapped(model: nn.Module) -> BridleModel:
    """The model inside fairseq's wrappers for several processes (``legacy_ddp`` has two)."""
    inner: Any = model
    while not isinstance(inner, BridleModel):
        inner = inner.module
    return inner
