"""A patch for the speed of omegaconf 2.0, which fairseq pins."""

from __future__ import annotations

import copy
from types import ModuleType, SimpleNamespace
from typing import Any


def copy_without_parents(module: ModuleType) -> None:
    """Needed on omegaconf 2.0: a node that is set into a configuration is copied with the tree above it.

    The copy then gets another parent, and the tree's copy is lost. hydra sets a thousand nodes, and spends a third of
    the time in which it composes a configuration on these trees. omegaconf 2.1 copies the node alone, too.
    """
    from omegaconf.version import __version__

    if __version__.startswith("2.0."):
        module.copy = SimpleNamespace(deepcopy=copy_node)  # type: ignore[attr-defined]


def copy_node(value: Any) -> Any:
    """A deep copy; that of a node keeps its parent."""
    parent = getattr(value, "__dict__", {}).get("_parent")
    return copy.deepcopy(value, {id(parent): parent})
