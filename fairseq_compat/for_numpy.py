"""Patches needed because of NumPy."""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace
from typing import Any


class _NumPyWithBuiltins:
    """NumPy as a module of fairseq sees it: everything of numpy, and the three aliases that it lost."""

    int = int
    float = float
    compat = SimpleNamespace(long=int)

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("numpy"), name)


def restore_builtin_aliases(module: ModuleType) -> None:
    """Needed on NumPy >= 1.24, which lost ``np.int`` and ``np.float``, and on newer ones without ``np.compat.long``.

    Three modules of fairseq still use them: ``fairseq.data.data_utils`` (span masks without overlap, as in wav2vec and
    HuBERT), ``fairseq.modules.dynamic_crf_layer`` and ``fairseq.data.token_block_dataset`` (language models whose
    samples are lines). Only the name ``np`` inside these modules is replaced.
    """
    module.np = _NumPyWithBuiltins()  # type: ignore[attr-defined]
