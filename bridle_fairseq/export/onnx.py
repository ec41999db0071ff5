"""The encoder of an export as an ONNX graph, from waveforms on."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridle_fairseq.export.core import EncoderCore
from bridle_fairseq.nn.attention import FUSED_FROM_CPU
from bridle_fairseq.pretrained import load
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import

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


ONNX = "encoder.onnx"
INPUTS, OUTPUTS = ("waveform", "padding_mask"), ("features", "class_token", "feature_padding")
TOLERANCE = 1e-3  # of a feature: the graph's Fourier transform rounds otherwise, which a log of small energies shows
CHECKED = ((1, 0.01), (3, 0.5), (2, 1.0), (1, 4.321))  # clips and their seconds: under a frame, and any numbers


def write_onnx(folder: Path) -> float:
    """Write ``encoder.onnx`` into an export and compare what onnxruntime makes of it with torch, at several lengths.

    Inputs: ``waveform``, B x S float32 at the model's rate; ``padding_mask``, B x S bool, True after the end of a
    shorter clip. Outputs: ``features``, B x N x D, ``class_token``, B x D, and ``feature_padding``, B x N bool. B and
    S are free.

    Args:
        folder: of an export of sound with an encoder.

    Returns:
        The largest difference of a feature from torch's.

    Raises:
        InputError: a package of the extra ``onnx`` is missing, or onnxruntime computes something else.
    """
    with optional_import("--onnx needs onnx, onnxruntime and onnxscript", "'bridle_fairseq[onnx]'"):
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    model = load(folder)
    with _quiet():
        program: Any = torch.onnx.export(
            model.program(), dynamo=True, input_names=INPUTS, output_names=OUTPUTS, verbose=False
        )
        program.save(str(folder / ONNX))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
    examples = [_example(clips, round(seconds * model.sample_rate)) for clips, seconds in CHECKED]
    difference = max(_difference(session, model.core, *example) for example in examples)
    if not difference < TOLERANCE:
        raise InputError(f"onnxruntime differs from torch by {difference:.2g}; expected under {TOLERANCE:g}")
    return difference


def _example(clips: int, samples: int) -> tuple[Tensor, Tensor]:
    """Clips of tones that wander, each but the first one shorter than the one before."""
    random = torch.Generator().manual_seed(0)
    waveform = 0.3 * (torch.rand(clips, samples, generator=random) * 0.6).cumsum(1).sin()
    lengths = torch.tensor([max(1, samples - samples * number // 4) for number in range(clips)])
    return waveform, torch.arange(samples) >= lengths[:, None]


def _difference(session: Any, core: Any, waveform: Tensor, padding_mask: Tensor) -> float:
    """The largest one of a feature; infinite where they are not of the same patches."""
    with torch.no_grad():
        x, class_token, padding = core(waveform, padding_mask)
    inputs = dict(zip(INPUTS, (waveform.numpy(), padding_mask.numpy()), strict=True))
    features, token, mask = map(torch.from_numpy, session.run(None, inputs))
    if not torch.equal(mask, padding):
        return float("inf")
    return float(torch.maximum((features - x)[~padding].abs().max(), (token - class_token).abs().max()))


@contextlib.contextmanager
def _quiet() -> Any:
    """Without what torch's exporter says about operators that are not used here."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
