"""fairseq model ``bridle_classifier``: the encoder of a ``bridle`` checkpoint, pooling and a linear head."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, List, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model

from bridle_fairseq.models.checkpoints import load_encoder, pretrained_settings
from bridle_fairseq.nn.classifier import Classifier
from bridle_fairseq.nn.pooling_kinds import POOLINGS_HELP
from bridle_fairseq.nn.pretrained_encoder import ClassifierRegularization
from bridle_fairseq.nn.settings import BridleSettings

if TYPE_CHECKING:
    from bridle_fairseq.tasks.bridle_classification import BridleClassificationTask


@dataclass
class BridleClassifierConfig(ClassifierRegularization, FairseqDataclass):
    """The checkpoint, the head, whether the encoder is fine-tuned, and regularization."""

    checkpoint: Optional[str] = field(default=None, metadata={"help": "checkpoint or export of the model 'bridle'"})
    pooling: str = field(default="mean", metadata={"help": f"how patches become one vector: {POOLINGS_HELP}"})
    freeze_encoder: bool = field(default=False, metadata={"help": "train only norm and head (linear probe)"})
    fbank_mean: Optional[float] = field(
        default=None, metadata={"help": "mean of the log-mel values (default: the checkpoint's)"}
    )
    fbank_std: Optional[float] = field(
        default=None, metadata={"help": "standard deviation of the log-mel values (default: the checkpoint's)"}
    )
    pixel_mean: Optional[List[float]] = field(
        default=None, metadata={"help": "mean of red, green and blue (default: the checkpoint's)"}
    )
    pixel_std: Optional[List[float]] = field(
        default=None, metadata={"help": "standard deviation of red, green and blue (default: the checkpoint's)"}
    )
    settings: Any = field(
        default=None, metadata={"help": "written by the run: settings of the checkpoint; its file is no longer needed"}
    )


@register_model("bridle_classifier", dataclass=BridleClassifierConfig)
class BridleClassifierModel(Classifier, BaseFairseqModel):
    """:class:`Classifier` for the classes of the task."""

    def __init__(self, cfg: BridleClassifierConfig, settings: BridleSettings, num_classes: int) -> None:
        names = [f.name for f in fields(ClassifierRegularization) if hasattr(cfg, f.name)]  # old checkpoints lack some
        regularization = ClassifierRegularization(**{name: getattr(cfg, name) for name in names})
        super().__init__(settings, num_classes, cfg.pooling, cfg.freeze_encoder, regularization)
        self.cfg = cfg

    @classmethod
    def build_model(cls, cfg: BridleClassifierConfig, task: "BridleClassificationTask") -> "BridleClassifierModel":
        """A new classifier from ``cfg.checkpoint``; with ``cfg.settings``, fairseq loads the weights afterwards.

        Raises:
            InputError: see :func:`pretrained_settings` and :class:`Classifier`.
        """
        settings, weights = pretrained_settings(cfg, task)
        model = cls(cfg, settings, len(task.classes))
        load_encoder(model.encoder, weights, str(cfg.checkpoint))
        return model
