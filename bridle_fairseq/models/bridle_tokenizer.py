"""fairseq model ``bridle_tokenizer``: the tokenizer of a ``bridle`` checkpoint, to encode and decode."""

from dataclasses import dataclass, field
from typing import Optional

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from fairseq.tasks import FairseqTask
from torch import Tensor

from bridle_fairseq.models.checkpoints import load_tokenizer, read_bridle
from bridle_fairseq.nn.code_tokenizer import CodeTokenizer
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError


@dataclass
class BridleTokenizerConfig(FairseqDataclass):
    """All other settings are in the checkpoint."""

    checkpoint: Optional[str] = field(default=None, metadata={"help": "checkpoint or export of the model 'bridle'"})


@register_model("bridle_tokenizer", dataclass=BridleTokenizerConfig)
class BridleTokenizerModel(BaseFairseqModel):
    """Codes of a batch, and features estimated from codes. For inference only.

    Args:
        settings: settings of the pretrained model ``bridle``.
    """

    def __init__(self, settings: BridleSettings) -> None:
        super().__init__()
        self.settings = settings
        self.bridle = CodeTokenizer(settings).requires_grad_(False)
        self.eval()

    @classmethod
    def build_model(cls, cfg: BridleTokenizerConfig, task: FairseqTask | None = None) -> "BridleTokenizerModel":
        """The tokenizer of ``cfg.checkpoint``."""
        return cls.from_checkpoint(cfg.checkpoint)

    @classmethod
    def from_checkpoint(cls, path: str | None) -> "BridleTokenizerModel":
        """The tokenizer of a checkpoint of the model ``bridle``.

        Raises:
            InputError: the file is missing, no checkpoint, of another model, or its codebooks are not initialized.
        """
        settings, weights = read_bridle(path, "tokenizer")
        model = cls(settings)
        load_tokenizer(model.bridle, weights, str(path))
        return model

    def train(self, mode: bool = True) -> "BridleTokenizerModel":
        """Accepts ``train(False)`` only.

        Raises:
            InputError: for ``train(True)``.
        """
        if mode:
            raise InputError("a bridle_tokenizer is not trained by itself; expected the model 'bridle' to be trained")
        return super().train(mode)

    @torch.no_grad()
    def encode(
        self, source: Tensor, padding_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Codes of a batch; for a checkpoint of the cold start, codes of its random projection.

        Args:
            source: B x S waveforms, or B x 3 x height x width pixels.
            padding_mask: B x S, B x height x width, or None.

        Returns:
            Codes B x N x K, the padding mask of patches (B x N or None), and the grid: patches along each axis.
        """
        return self.bridle.tokenize(source, padding_mask)

    @torch.no_grad()
    def decode(self, codes: Tensor, grid: tuple[int, ...], padding_mask: Tensor | None = None) -> Tensor:
        """Encoder features estimated from codes, B x N x D; see :meth:`CodeTokenizer.decode`.

        Args:
            codes: B x N x K, as :meth:`encode` returns them.
            grid: patches along each axis; their product is N.
            padding_mask: B x N or None.

        Raises:
            InputError: the checkpoint is of the cold start, whose estimator has not been trained.
        """
        if not self.bridle.tokenizer_ready:
            raise InputError("this checkpoint's codes are of the cold start; expected one of a later stage, to decode")
        return self.bridle.decode(codes, grid, padding_mask)

    def forward(
        self, source: Tensor, padding_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Same as :meth:`encode`."""
        return self.encode(source, padding_mask)
