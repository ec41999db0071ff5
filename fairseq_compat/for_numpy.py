"""Patches needed because of NumPy."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _NumPyWithBuiltins:
    """NumPy as a module of fairseq sees it: everything of numpy, and the two aliases that it lost."""

    int = int
    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("numpy"), name)


def restore_builtin_aliases(module: ModuleType) -> None:
    """Needed on NumPy >= 1.24: ``np.int`` and ``np.float`` are gone, and two modules of fairseq still use them.

    They are ``fairseq.data.data_utils`` (span masks without overlap, as in wav2vec and HuBERT) and
    ``fairseq.modules.dynamic_crf_layer``. Only the name ``np`` inside these two modules is replaced.
    """
    module.np = _NumPyWithBuiltins()  # type: ignore[attr-defined]
