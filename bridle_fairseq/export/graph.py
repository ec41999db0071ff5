"""An encoder of sound as one graph of tensors, for clips of any number and length: torch.export and ONNX."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridle_fairseq.export.core import EncoderCore
from bridle_fairseq.nn.attention import FUSED_FROM_CPU

MOST_CLIPS, MOST_SECONDS = 4096, 3600  # of a batch that the graph takes


class EncoderGraph(nn.Module):
    """An :class:`EncoderCore` of sound whose shapes can be traced for any number of samples.

    A clip is filled up, with what counts as padding, to whole patches and to as many of them as attention wants for
    one and the same code on all devices; what comes of the added patches is cut off again.

    Args:
        core: with the front end of sound.
    """

    def __init__(self, core: EncoderCore) -> None:
        super().__init__()
        self.core = core

    def forward(self, waveform: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the core makes of waveforms: B x N x D, B x D, and B x N.

        Args:
            waveform: B x S at the model's rate, S at least 1.
            padding_mask: B x S, True after the end of a shorter clip.
        """
        front_end: Any = self.core.front_end
        log_mel, rows, patch_frames = front_end.log_mel, front_end.rows, front_end.patch_size[0]
        shift, length = log_mel.frame_shift, log_mel.frame_length
        samples = waveform.shape[1]
        frames = 1 + (torch.sym_max(samples, length) - length) // shift
        own = (frames + patch_frames - 1) // patch_frames
        least = -(-(FUSED_FROM_CPU - 1) // rows)
        # By way of a tensor, the number of patches is a size of its own to the tracer: what follows is a multiple of
        # it, which can be seen to fit, while a multiple of a rounded quotient of samples cannot.
        patches = torch.full((), torch.sym_max(own, least), dtype=torch.int64).item()
        torch._check(patches >= least)
        torch._check(patches >= own)
        total = patches * patch_frames * shift + length - shift
        filled = functional.pad(waveform, (0, total))[:, :total]  # type: ignore[list-item, misc]
        mask = functional.pad(padding_mask, (0, total), value=True)[:, :total]  # type: ignore[list-item, misc]
        x, class_token, padding = self.core(filled, mask)
        return x[:, : own * rows], class_token, padding[:, : own * rows]


def export_graph(core: EncoderCore) -> torch.export.ExportedProgram:
    """The graph of an encoder of sound, with any number of clips and of samples; on the core's device.

    Args:
        core: in eval mode.

    Returns:
        A program that takes and gives what :meth:`EncoderGraph.forward` does.
    """
    front_end: Any = core.front_end
    device, rate = core.encoder.class_token.device, front_end.log_mel.sample_rate
    waveform = torch.zeros(2, rate, device=device)
    mask = torch.arange(rate, device=device) >= torch.tensor([rate, rate // 2], device=device)[:, None]
    clips = torch.export.Dim("clips", min=1, max=MOST_CLIPS)
    samples = torch.export.Dim("samples", min=1, max=MOST_SECONDS * rate)
    shapes = ({0: clips, 1: samples}, {0: clips, 1: samples})
    with torch.no_grad():  # what switches gradients off on the way would stand in the graph, and could not be saved
        return torch.export.export(EncoderGraph(core).eval(), (waveform, mask), dynamic_shapes=shapes, strict=False)
