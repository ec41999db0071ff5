"""The encoder of an export as an ONNX graph, from waveforms on."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bridle_fairseq.pretrained import load
from bridle_fairseq.utils.errors import InputError

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
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--onnx needs {error.name}, of the extra onnx: pip install 'bridle_fairseq[onnx]'") from None
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
