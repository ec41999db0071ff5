"""fairseq model ``bridle_ctc``: the encoder of a ``bridle`` checkpoint, and symbols of a transcript in every frame."""

from dataclasses import dataclass, field, fields
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model

from bridle_fairseq.models.checkpoints import load_encoder, tuned_settings
from bridle_fairseq.nn.ctc import Transcriber
from bridle_fairseq.nn.pretrained_encoder import EncoderTuning
from bridle_fairseq.nn.settings import BridleSettings


@dataclass
class BridleCtcConfig(EncoderTuning, FairseqDataclass):
    """What is put on top of the encoder, whether the encoder learns too, and how it is kept from learning by heart."""

    checkpoint: Optional[str] = field(default=None, metadata={"help": "checkpoint of the model 'bridle', of sound"})
    pooling: str = field(
        default="frequency",
        metadata={"help": "patches of a time step: frequency (rows kept apart, one after the other) or mean"},
    )
    upsample: int = field(
        default=4, metadata={"help": "frames that a time step emits: a patch of 8 log-mel frames is 80 ms"}
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "train norm and head only"})
    fbank_mean: Optional[float] = field(
        default=None, metadata={"help": "mean of the log-mel values (default: the checkpoint's)"}
    )
    fbank_std: Optional[float] = field(
        default=None, metadata={"help": "deviation of the log-mel values (default: the checkpoint's)"}
    )
    settings: Any = field(
        default=None, metadata={"help": "written by the run: the checkpoint's settings, so that its file can go"}
    )


@register_model("bridle_ctc", dataclass=BridleCtcConfig)
class BridleCtcModel(Transcriber, BaseFairseqModel):
    """:class:`Transcriber` for as many symbols as the task's dictionary has."""

    def __init__(self, cfg, settings: BridleSettings, num_symbols: int):
        tuning = EncoderTuning(**{f.name: getattr(cfg, f.name) for f in fields(EncoderTuning)})
        super().__init__(settings, num_symbols, cfg.pooling, cfg.upsample, cfg.freeze_encoder, tuning)
        self.cfg = cfg

    @classmethod
    def build_model(cls, cfg, task):
        """A new model from ``cfg.checkpoint``; with ``cfg.settings``, one whose weights are loaded afterwards.

        Raises:
            InputError: as :func:`tuned_settings` and :class:`Transcriber`, or the dictionary cannot be read.
        """
        settings, weights = tuned_settings(cfg, task)
        model = cls(cfg, settings, len(task.vocabulary))
        load_encoder(model.encoder, weights, cfg.checkpoint)
        return model
