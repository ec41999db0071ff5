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

from bridle_fairseq.errors import InputError
from bridle_fairseq.pretrained import load

ONNX = "encoder.onnx"
TOLERANCE = 1e-3  # of a feature: the graph's Fourier transform rounds otherwise, which a log of small energies shows
CHECKED_BATCH = 2


class _Graph(nn.Module):
    """The core without the mask of patches, which follows from the mask of samples."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core

    def forward(self, waveform: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.core(waveform, padding_mask)[:2]


def write_onnx(folder: Path, seconds: float) -> float:
    """Write ``encoder.onnx`` into an export and compare what onnxruntime makes of it with torch.

    Inputs: ``waveform``, B x S float32 at the model's rate, S as long as ``seconds``; ``padding_mask``, B x S bool,
    True after the end of a shorter clip. Outputs: ``features``, B x N x D, and ``class_token``, B x D. B is free.

    Args:
        folder: of an export with an encoder.
        seconds: length of the input.

    Returns:
        The largest difference of a feature from torch's.

    Raises:
        InputError: a package of the extra ``onnx`` is missing, or the length is under a frame.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--onnx needs {error.name}, of the extra onnx: pip install 'bridle_fairseq[onnx]'") from None
    model = load(folder)
    samples = round(seconds * model.sample_rate)
    if samples < model.module.front_end.log_mel.frame_length:
        raise InputError(f"--onnx is {seconds:g} seconds; expected at least a frame of 0.025")
    graph = _Graph(model.core).eval()
    inputs = _example(samples)
    with _quiet():
        batch = {0: torch.export.Dim("batch", min=1, max=4096)}
        program: Any = torch.onnx.export(
            graph,
            inputs,
            dynamo=True,
            dynamic_shapes=(batch, batch),
            input_names=["waveform", "padding_mask"],
            output_names=["features", "class_token"],
            verbose=False,
        )
        program.save(str(folder / ONNX))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
    return _difference(session, graph, model.core, inputs)


def _example(samples: int) -> tuple[Tensor, Tensor]:
    """A whole clip and one of three quarters, of tones that wander."""
    random = torch.Generator().manual_seed(0)
    waveform = 0.3 * (torch.rand(CHECKED_BATCH, samples, generator=random) * 0.6).cumsum(1).sin()
    lengths = torch.tensor([samples, max(1, 3 * samples // 4)])
    return waveform, torch.arange(samples) >= lengths[:, None]


def _difference(session: Any, graph: nn.Module, core: Any, inputs: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        expected, padding = graph(*inputs), core(*inputs)[2]
    names = ("waveform", "padding_mask")
    found = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    features = (torch.from_numpy(found[0]) - expected[0])[~padding].abs().max()
    difference = float(torch.maximum(features, (torch.from_numpy(found[1]) - expected[1]).abs().max()))
    if not difference < TOLERANCE:
        raise InputError(f"onnxruntime differs from torch by {difference:.2g}; expected under {TOLERANCE:g}")
    return difference


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
