"""Front end and encoder as one module from tensors to tensors, for torch.compile, torch.export and ONNX."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.frontend import FrontEnd


class EncoderCore(nn.Module):
    """Front end and encoder.

    Args:
        front_end: of waveforms or pixels.
        encoder: of the front end's patches.
    """

    def __init__(self, front_end: FrontEnd, encoder: Encoder) -> None:
        super().__init__()
        self.front_end, self.encoder = front_end, encoder

    @torch.no_grad()
    def forward(self, source: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Normalized features of the patches and of the class token, and the padding mask of the patches.

        Args:
            source: input of the front end (audio: B x S at the model's rate; image: B x 3 x height x width; video:
                B x 3 x frames x height x width).
            padding_mask: as ``source`` without the channel axis, or None.

        Returns:
            B x N x D, B x D, and B x N bool (None without ``padding_mask``).
        """
        patches = self.front_end(source, padding_mask)
        out = self.encoder(patches.x, patches.grid, patches.padding_mask)
        return out.x, out.class_token, patches.padding_mask
