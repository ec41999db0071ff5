"""An encoder for X-ARES, built as the benchmark builds it."""

from __future__ import annotations

import pytest
import torch

from bridle_fairseq import pretrained

ENCODER = """from bridle_fairseq.adapters import xares


class MyEncoder(xares.XaresBase):
    source = "{source}"
"""


def test_an_encoder_has_what_the_benchmark_asks_for(exported, tmp_path, monkeypatch) -> None:
    checker = pytest.importorskip("xares.audio_encoder_checker", reason="X-ARES is not installed: make adapters")
    from xares.utils import attr_from_py_path

    (tmp_path / "my_encoder_of_xares.py").write_text(ENCODER.format(source=exported / "encoder"))
    monkeypatch.syspath_prepend(tmp_path)
    encoder = attr_from_py_path("my_encoder_of_xares.py", endswith="Encoder")()
    assert checker.check_audio_encoder(encoder)
    audio = torch.randn(2, 50000) * 0.1
    features = pretrained.load(exported / "encoder").features(audio, 16000)
    assert torch.equal(encoder(audio), features.x.unflatten(1, features.grid).flatten(2))


def test_an_encoder_has_the_settings_of_its_class(exported) -> None:
    from bridle_fairseq.adapters.xares import XaresBase

    class MyEncoder(XaresBase):
        source, rows, layer = str(exported / "encoder"), "mean", 1

    assert (MyEncoder().output_dim, MyEncoder().layer) == (32, 1)
