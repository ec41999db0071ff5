"""fairseq model ``bridle_ctc``: the encoder of a ``bridle`` checkpoint and a CTC head."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model

from bridle_fairseq.models.checkpoints import load_encoder, pretrained_settings
from bridle_fairseq.nn.ctc import Transcriber
from bridle_fairseq.nn.pretrained_encoder import EncoderRegularization
from bridle_fairseq.nn.settings import BridleSettings

if TYPE_CHECKING:
    from bridle_fairseq.tasks.bridle_ctc import BridleCtcTask


@dataclass
class BridleCtcConfig(EncoderRegularization, FairseqDataclass):
    """The checkpoint, the head, whether the encoder is fine-tuned, and regularization."""

    checkpoint: Optional[str] = field(
        default=None, metadata={"help": "checkpoint or export of the model 'bridle' for audio"}
    )
    pooling: str = field(
        default="frequency",
        metadata={"help": "pooling of the patches of a time step: frequency (concatenate the rows) or mean"},
    )
    upsample: int = field(
        default=4, metadata={"help": "output frames per time step; a patch of 8 log-mel frames lasts 80 ms"}
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "train only norm and head"})
    fbank_mean: Optional[float] = field(
        default=None, metadata={"help": "mean of the log-mel values (default: the checkpoint's)"}
    )
    fbank_std: Optional[float] = field(
        default=None, metadata={"help": "standard deviation of the log-mel values (default: the checkpoint's)"}
    )
    settings: Any = field(
        default=None, metadata={"help": "written by the run: settings of the checkpoint; its file is no longer needed"}
    )


@register_model("bridle_ctc", dataclass=BridleCtcConfig)
class BridleCtcModel(Transcriber, BaseFairseqModel):
    """:class:`Transcriber` for the dictionary of the task."""

    def __init__(self, cfg: BridleCtcConfig, settings: BridleSettings, num_symbols: int) -> None:
        names = [f.name for f in fields(EncoderRegularization)]
        regularization = EncoderRegularization(**{name: getattr(cfg, name) for name in names})
        super().__init__(settings, num_symbols, cfg.pooling, cfg.upsample, cfg.freeze_encoder, regularization)
        self.cfg = cfg

    @classmethod
    def build_model(cls, cfg: BridleCtcConfig, task: "BridleCtcTask") -> "BridleCtcModel":
        """A new model from ``cfg.checkpoint``; with ``cfg.settings``, fairseq loads the weights afterwards.

        Raises:
            InputError: see :func:`pretrained_settings` and :class:`Transcriber`, or the dictionary cannot be read.
        """
        settings, weights = pretrained_settings(cfg, task)
        model = cls(cfg, settings, len(task.vocabulary))
        load_encoder(model.encoder, weights, str(cfg.checkpoint))
        return model
