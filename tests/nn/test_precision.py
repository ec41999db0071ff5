import logging

import pytest
import torch

from bridle_fairseq.nn import precision
from bridle_fairseq.nn.precision import autocast, has_fast_bfloat16

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
def test_products_have_the_precision_that_is_set(machine, name, fast, dtype) -> None:
    machine(fast)
    assert product_dtype(name) is dtype


def test_emulated_products_are_warned_of_once(machine, caplog) -> None:
    machine(False)
    with caplog.at_level(logging.WARNING):
        for name in ("auto", "float32", "bfloat16", "bfloat16"):
            product_dtype(name)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "model.precision is bfloat16" in caplog.text and "auto" in caplog.text


@pytest.mark.parametrize(("avx512_bf16", "amx", "fast"), [(0, 0, False), (1, 0, True), (0, 1, True)])
def test_a_processor_is_asked_for_its_instructions(monkeypatch, avx512_bf16, amx, fast) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx512_bf16))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx))
    assert has_fast_bfloat16.__wrapped__("cpu") is fast


def test_devices_that_are_not_known_compute_in_float32() -> None:
    assert has_fast_bfloat16("mps") is False
