"""Patches needed because of NumPy."""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace
from typing import Any


class _NumPyWithBuiltins:
    """Stands in for ``numpy`` inside a fairseq module: all of numpy and the three removed aliases."""

    int = int
    float = float
    compat = SimpleNamespace(long=int)

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("numpy"), name)


def restore_builtin_aliases(module: ModuleType) -> None:
    """Needed on NumPy >= 1.24, which removed ``np.int`` and ``np.float``, and on NumPy without ``np.compat.long``.

    Three modules of fairseq still use them: ``fairseq.data.data_utils`` (non-overlapping span masks, as in wav2vec and
    HuBERT), ``fairseq.modules.dynamic_crf_layer`` and ``fairseq.data.token_block_dataset`` (language models with one
    sample per line). The patch replaces only the name ``np`` inside these modules.
    """
    module.np = _NumPyWithBuiltins()  # type: ignore[attr-defined]
