"""``encoder.onnx`` of an export, checked in onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bridle_fairseq.exported.graph import EncoderCore
from bridle_fairseq.pretrained import load
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import

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
        folder: folder of an export of sound with an encoder.

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


def _difference(session: Any, core: EncoderCore, waveform: Tensor, padding_mask: Tensor) -> float:
    """The largest absolute difference of a feature; infinite if the padding masks differ."""
    with torch.no_grad():
        x, class_token, padding = core(waveform, padding_mask)
    inputs = dict(zip(INPUTS, (waveform.numpy(), padding_mask.numpy()), strict=True))
    features, token, mask = map(torch.from_numpy, session.run(None, inputs))
    if not torch.equal(mask, padding):
        return float("inf")
    return float(torch.maximum((features - x)[~padding].abs().max(), (token - class_token).abs().max()))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings of torch's exporter about operators that are not used here."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
