import contextlib
import logging

import pytest
import torch

from bridle_fairseq.utils import precision
from bridle_fairseq.utils.precision import autocast, autocast_codes, has_fast_bfloat16

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """``machine(fast)``: a CPU with or without instructions for bfloat16."""

    def be(fast: bool) -> None:
        monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device_type: fast)

    precision._warn.cache_clear()
    yield be
    precision._warn.cache_clear()


def product_dtype(name: str) -> torch.dtype:
    with autocast(name, CPU):
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize(
    ("name", "fast", "dtype"),
    [
        ("float32", True, torch.float32),
        ("bfloat16", True, torch.bfloat16),
        ("bfloat16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_products_have_the_configured_precision(machine, name, fast, dtype) -> None:
    machine(fast)
    assert product_dtype(name) is dtype


def codes_dtype(name: str, codes_name: str, device_type: str, within: str = "") -> torch.dtype | None:
    """What the tokenizer's products are cast to; None where nothing is."""
    outer = torch.autocast(device_type, dtype=getattr(torch, within)) if within else contextlib.nullcontext()
    with outer, autocast_codes(name, codes_name, torch.device(device_type)):
        return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None


@pytest.mark.parametrize(
    ("name", "codes_name", "device_type", "dtype"),
    [
        ("float32", "auto", "cpu", None),
        ("bfloat16", "auto", "cpu", None),
        ("bfloat16", "auto", "cuda", torch.float16),
        ("auto", "auto", "cuda", torch.float16),
        ("float32", "auto", "cuda", None),
        ("bfloat16", "float32", "cuda", None),
        ("bfloat16", "bfloat16", "cpu", torch.bfloat16),
        ("float32", "float16", "cpu", torch.float16),
    ],
)
@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
def test_codes_have_their_own_precision(machine, monkeypatch, name, codes_name, device_type, dtype) -> None:
    machine(True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert codes_dtype(name, codes_name, device_type) is dtype


def test_float32_keeps_an_enclosing_autocast() -> None:
    """fairseq's ``common.amp``."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product_dtype("float32") is torch.bfloat16
    assert codes_dtype("float32", "auto", "cpu", within="bfloat16") is torch.bfloat16
    assert codes_dtype("float32", "float32", "cpu", within="bfloat16") is None


def test_emulated_products_warn_once(machine, caplog) -> None:
    machine(False)
    with caplog.at_level(logging.WARNING):
        for name in ("auto", "float32", "bfloat16", "bfloat16"):
            product_dtype(name)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "model.precision is bfloat16" in caplog.text and "auto" in caplog.text


@pytest.mark.parametrize(("avx512_bf16", "amx", "fast"), [(0, 0, False), (1, 0, True), (0, 1, True)])
def test_bfloat16_depends_on_the_instructions_of_the_processor(monkeypatch, avx512_bf16, amx, fast) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx512_bf16))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx))
    assert has_fast_bfloat16.__wrapped__("cpu") is fast


def test_unknown_devices_use_float32() -> None:
    assert has_fast_bfloat16("mps") is False
