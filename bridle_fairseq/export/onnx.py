"""The encoder of an export as a graph for torch.export and ONNX, from waveforms to features."""

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

MOST_CLIPS, MOST_SECONDS = 4096, 3600  # of a batch


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
        filled = functional.pad(waveform, (0, total))[:, :total]  # type: ignore[list-item, misc]
        mask = functional.pad(padding_mask, (0, total), value=True)[:, :total]  # type: ignore[list-item, misc]
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


ONNX = "encoder.onnx"
INPUTS, OUTPUTS = ("waveform", "padding_mask"), ("features", "class_token", "feature_padding")
TOLERANCE = 1e-3  # of a feature: the graph's Fourier transform rounds differently, visible in logs of small energies
CHECKED = ((1, 0.01), (3, 0.5), (2, 1.0), (1, 4.321))  # clips and seconds of test batches; the first is under a frame


def write_onnx(folder: Path) -> float:
    """Write ``encoder.onnx`` into an export, and compare onnxruntime with torch at several lengths.

    Inputs: ``waveform``, B x S float32 at the model's rate, and ``padding_mask``, B x S bool, True after the end of a
    shorter clip. Outputs: ``features``, B x N x D, ``class_token``, B x D, and ``feature_padding``, B x N bool. B and
    S are dynamic.

    Args:
        folder: of an export of sound with an encoder.

    Returns:
        The largest absolute difference of a feature.

    Raises:
        InputError: a package of the extra ``onnx`` is missing, or the difference is too large.
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
    batches = [_test_batch(clips, round(seconds * model.sample_rate)) for clips, seconds in CHECKED]
    difference = max(_difference(session, model.core, *batch) for batch in batches)
    if not difference < TOLERANCE:
        raise InputError(f"onnxruntime differs from torch by {difference:.2g}; expected under {TOLERANCE:g}")
    return difference


def _test_batch(clips: int, samples: int) -> tuple[Tensor, Tensor]:
    """Waveforms of random frequency modulation, each clip shorter than the one before, and their padding mask."""
    random = torch.Generator().manual_seed(0)
    waveform = 0.3 * (torch.rand(clips, samples, generator=random) * 0.6).cumsum(1).sin()
    lengths = torch.tensor([max(1, samples - samples * number // 4) for number in range(clips)])
    return waveform, torch.arange(samples) >= lengths[:, None]


def _difference(session: Any, core: Any, waveform: Tensor, padding_mask: Tensor) -> float:
    """The largest absolute difference of a feature; infinite if the padding masks differ."""
    with torch.no_grad():
        x, class_token, padding = core(waveform, padding_mask)
    inputs = dict(zip(INPUTS, (waveform.numpy(), padding_mask.numpy()), strict=True))
    features, token, mask = map(torch.from_numpy, session.run(None, inputs))
    if not torch.equal(mask, padding):
        return float("inf")
    return float(torch.maximum((features - x)[~padding].abs().max(), (token - class_token).abs().max()))


@contextlib.contextmanager
def _quiet() -> Any:
    """Suppress warnings of torch's exporter about operators that are not used here."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
