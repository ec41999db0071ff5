"""fairseq model ``bridle_mel_decoder``: estimates log-mel from the codes of a ``bridle`` checkpoint."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model

from bridle_fairseq.exported.source import model_sha256
from bridle_fairseq.models.bridle import settings_from
from bridle_fairseq.models.checkpoints import load_tokenizer, read_bridle
from bridle_fairseq.nn.mel_decoder import MelDecoder
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:
    from bridle_fairseq.tasks.bridle_reconstruction import BridleReconstructionTask


@dataclass
class BridleMelDecoderConfig(FairseqDataclass):
    """The checkpoint of the tokenizer, and the size of the decoder."""

    checkpoint: Optional[str] = field(default=None, metadata={"help": "checkpoint or export of the model 'bridle'"})
    decoder_width: int = field(default=192, metadata={"help": "width of the decoder"})
    decoder_depth: int = field(default=2, metadata={"help": "number of attention blocks of the decoder"})
    decoder_heads: int = field(default=4, metadata={"help": "attention heads of the decoder"})
    settings: Any = field(
        default=None, metadata={"help": "written by the run: settings of the checkpoint; its file is no longer needed"}
    )
    checkpoint_sha256: Optional[str] = field(
        default=None, metadata={"help": "written by the run: hash of the checkpoint, to recognize its codes"}
    )


@register_model("bridle_mel_decoder", dataclass=BridleMelDecoderConfig)
class BridleMelDecoderModel(MelDecoder, BaseFairseqModel):
    """:class:`MelDecoder` with the tokenizer of a checkpoint."""

    def __init__(self, cfg: BridleMelDecoderConfig, settings: BridleSettings) -> None:
        super().__init__(settings, cfg.decoder_width, cfg.decoder_depth, cfg.decoder_heads)
        self.cfg = cfg
        self.checkpoint_sha256 = getattr(cfg, "checkpoint_sha256", None)

    @classmethod
    def build_model(cls, cfg: BridleMelDecoderConfig, task: "BridleReconstructionTask") -> "BridleMelDecoderModel":
        """A new decoder for ``cfg.checkpoint``; with ``cfg.settings``, fairseq loads the weights afterwards.

        Raises:
            InputError: the checkpoint is unusable, or its sample rate is not the task's.
        """
        if getattr(cfg, "settings", None) is not None:
            return cls(cfg, settings_from(cfg.settings))
        settings, weights = read_bridle(cfg.checkpoint, "tokenizer")
        if settings.sample_rate != task.cfg.sample_rate:
            raise InputError(
                f"task.sample_rate is {task.cfg.sample_rate}; expected {settings.sample_rate}, that of {cfg.checkpoint}"
            )
        model = cls(cfg, settings)
        load_tokenizer(model.tokenizer, weights, str(cfg.checkpoint))
        model.checkpoint_sha256 = model_sha256(str(cfg.checkpoint))
        return model
