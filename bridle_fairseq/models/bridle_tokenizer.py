"""fairseq model ``bridle_tokenizer``: media to codes and back to features, by parts of a ``bridle`` checkpoint."""

from dataclasses import dataclass, field
from typing import Optional, Tuple

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor

from bridle_fairseq.models.checkpoints import load_tokenizer, read_bridle
from bridle_fairseq.nn.bridle import tokenizer_alone
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.precision import autocast


@dataclass
class BridleTokenizerConfig(FairseqDataclass):
    """Everything else is in the checkpoint."""

    checkpoint: Optional[str] = field(default=None, metadata={"help": "checkpoint of the model 'bridle'"})


@register_model("bridle_tokenizer", dataclass=BridleTokenizerConfig)
class BridleTokenizerModel(BaseFairseqModel):
    """What makes codes of a batch and estimates features from codes; for use, not for training.

    Args:
        settings: of the model ``bridle`` whose parts these are.
    """

    def __init__(self, settings: BridleSettings):
        super().__init__()
        self.settings = settings
        self.bridle = tokenizer_alone(settings)
        self.eval()

    @classmethod
    def build_model(cls, cfg, task=None):
        """The tokenizer of ``cfg.checkpoint``."""
        return cls.from_checkpoint(cfg.checkpoint)

    @classmethod
    def from_checkpoint(cls, path: Optional[str]) -> "BridleTokenizerModel":
        """The tokenizer in a checkpoint of the model ``bridle``.

        Raises:
            InputError: missing, no checkpoint, of another model, or one whose codebooks have not been started.
        """
        settings, weights = read_bridle(path)
        model = cls(settings)
        load_tokenizer(model.bridle, weights, path)
        return model

    def train(self, mode: bool = True):
        """Only ``train(False)`` can be had.

        Raises:
            InputError: for ``train(True)``.
        """
        if mode:
            raise InputError("a bridle_tokenizer is not trained by itself; expected the model 'bridle' to be trained")
        return super().train(mode)

    @torch.no_grad()
    def encode(
        self, source: Tensor, padding_mask: Optional[Tensor] = None
    ) -> Tuple[Tensor, Optional[Tensor], Tuple[int, ...]]:
        """Codes of a batch; in a cold start, those of its random projection.

        Args:
            source: B x S waveforms, or B x 3 x height x width pixels.
            padding_mask: B x S, B x height x width, or None.

        Returns:
            Codes B x N x K, the padding of patches (B x N or None), and the grid: patches along each axis.
        """
        return self.bridle.tokenize(source, padding_mask)

    @torch.no_grad()
    def decode(self, codes: Tensor, grid: Tuple[int, ...], padding_mask: Optional[Tensor] = None) -> Tensor:
        """Estimated encoder features, B x N x D, as the tokenizer's loss compares them with the encoder's.

        That is by direction only, and with ``model.teacher`` "standardize" or "center" they are features from which a
        running mean was subtracted (and which were divided by a running deviation).

        Args:
            codes: B x N x K, as :meth:`encode` gives them.
            grid: patches along each axis; their product is N.
            padding_mask: B x N or None.

        Raises:
            InputError: the codes are those of the cold start's projection, from which nothing has learned to estimate.
        """
        if not self.bridle.tokenizer_ready:
            raise InputError("this checkpoint's codes are of the cold start; expected one of a later stage, to decode")
        quantized = self.bridle.quantizer.decode(codes)
        with autocast(self.settings.precision, quantized.device):
            return self.bridle.estimator(quantized, grid, padding_mask)

    def forward(self, source: Tensor, padding_mask: Optional[Tensor] = None):
        """The same as :meth:`encode`."""
        return self.encode(source, padding_mask)
