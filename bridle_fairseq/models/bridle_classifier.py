"""fairseq model ``bridle_classifier``: the encoder of a ``bridle`` checkpoint, pooling, and a linear head."""

from dataclasses import dataclass, field, fields
from typing import Any, List, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model

from bridle_fairseq.models.checkpoints import load_encoder, tuned_settings
from bridle_fairseq.nn.classifier import Classifier
from bridle_fairseq.nn.pretrained_encoder import FineTuning
from bridle_fairseq.nn.settings import BridleSettings


@dataclass
class BridleClassifierConfig(FineTuning, FairseqDataclass):
    """What is put on top of the encoder, whether the encoder learns too, and how it is kept from learning by heart."""

    checkpoint: Optional[str] = field(default=None, metadata={"help": "checkpoint of the model 'bridle'"})
    pooling: str = field(
        default="mean",
        metadata={"help": "mean of all patches, frequency (mean over time, rows kept apart) or class_token"},
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "train norm and head only: a linear probe"})
    fbank_mean: Optional[float] = field(
        default=None, metadata={"help": "mean of the log-mel values (default: the checkpoint's)"}
    )
    fbank_std: Optional[float] = field(
        default=None, metadata={"help": "deviation of the log-mel values (default: the checkpoint's)"}
    )
    pixel_mean: Optional[List[float]] = field(
        default=None, metadata={"help": "mean of red, green and blue (default: the checkpoint's)"}
    )
    pixel_std: Optional[List[float]] = field(
        default=None, metadata={"help": "deviation of red, green and blue (default: the checkpoint's)"}
    )
    settings: Any = field(
        default=None, metadata={"help": "written by the run: the checkpoint's settings, so that its file can go"}
    )


@register_model("bridle_classifier", dataclass=BridleClassifierConfig)
class BridleClassifierModel(Classifier, BaseFairseqModel):
    """:class:`Classifier` for as many classes as the task has."""

    def __init__(self, cfg, settings: BridleSettings, num_classes: int):
        chosen = {f.name: getattr(cfg, f.name) for f in fields(FineTuning) if hasattr(cfg, f.name)}
        super().__init__(settings, num_classes, cfg.pooling, cfg.freeze_encoder, FineTuning(**chosen))
        self.cfg = cfg

    @classmethod
    def build_model(cls, cfg, task):
        """A new classifier from ``cfg.checkpoint``; with ``cfg.settings``, one whose weights are loaded afterwards.

        Raises:
            InputError: as :func:`tuned_settings` and :class:`Classifier`.
        """
        settings, weights = tuned_settings(cfg, task)
        model = cls(cfg, settings, len(task.classes))
        load_encoder(model.encoder, weights, cfg.checkpoint)
        return model
