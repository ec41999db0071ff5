"""Front end and encoder as one module, and as a graph for torch.export and ONNX."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridle_fairseq.nn.attention import FUSED_FROM_CPU
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.frontend import FrontEnd

MOST_CLIPS, MOST_SECONDS = 4096, 3600  # of a batch


class EncoderCore(nn.Module):
    """Front end and encoder.

    Args:
        front_end: front end for waveforms or pixels.
        encoder: encoder of the front end's patches.
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


class EncoderGraph(nn.Module):
    """An :class:`EncoderCore` for sound that can be traced for any number of samples.

    Clips are padded to whole patches, and to the smallest number of patches for which attention takes the same code
    path on all devices. The features of added patches are removed.

    Args:
        core: with the front end of sound.
    """

    def __init__(self, core: EncoderCore) -> None:
        super().__init__()
        self.core = core

    def forward(self, waveform: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of waveforms: B x N x D, class tokens B x D, and the padding mask of patches B x N.

        Args:
            waveform: B x S at the model's rate, S at least 1.
            padding_mask: B x S bool, True after the end of a shorter clip.
        """
        front_end: Any = self.core.front_end
        log_mel, rows, patch_frames = front_end.log_mel, front_end.rows, front_end.patch_size[0]
        shift, length = log_mel.frame_shift, log_mel.frame_length
        samples = waveform.shape[1]
        frames = 1 + (torch.sym_max(samples, length) - length) // shift
        own = (frames + patch_frames - 1) // patch_frames
        least = -(-(FUSED_FROM_CPU - 1) // rows)
        # Going through a tensor makes the number of patches a symbol of its own for the tracer. It can then verify the
        # sizes below, which are multiples of this symbol; it cannot for multiples of a rounded quotient of samples.
        patches = torch.full((), torch.sym_max(own, least), dtype=torch.int64).item()
        torch._check(patches >= least)
        torch._check(patches >= own)
        total = patches * patch_frames * shift + length - shift
        filled = functional.pad(waveform, (0, total))[:, :total]
        mask = functional.pad(padding_mask, (0, total), value=True)[:, :total]
        x, class_token, padding = self.core(filled, mask)
        return x[:, : own * rows], class_token, padding[:, : own * rows]


def export_graph(core: EncoderCore) -> torch.export.ExportedProgram:
    """The graph of an encoder for sound, for any number of clips and of samples, on the core's device.

    Args:
        core: in eval mode.

    Returns:
        A program with the inputs and outputs of :meth:`EncoderGraph.forward`.
    """
    front_end: Any = core.front_end
    device, rate = core.encoder.class_token.device, front_end.log_mel.sample_rate
    waveform = torch.zeros(2, rate, device=device)
    mask = torch.arange(rate, device=device) >= torch.tensor([rate, rate // 2], device=device)[:, None]
    clips = torch.export.Dim("clips", min=1, max=MOST_CLIPS)
    samples = torch.export.Dim("samples", min=1, max=MOST_SECONDS * rate)
    shapes = ({0: clips, 1: samples}, {0: clips, 1: samples})
    with torch.no_grad():  # otherwise the graph contains the switch to no_grad, and cannot be saved
        return torch.export.export(EncoderGraph(core).eval(), (waveform, mask), dynamic_shapes=shapes, strict=False)
