"""A patch for the speed of omegaconf 2.0, which fairseq pins."""

from __future__ import annotations

import copy
from collections import defaultdict
from types import ModuleType, SimpleNamespace
from typing import Any


def copy_without_parents(module: ModuleType) -> None:
    """Needed on omegaconf 2.0: a node that is set into a configuration is copied with the tree above it.

    The copy then gets another parent, and the tree's copy is lost. hydra sets a thousand nodes, and spends a third of
    the time in which it composes a configuration on these trees. omegaconf 2.1 copies the node alone, too.

    Most of the rest goes into copies of single nodes. Here they take half of the time: a copy is not constructed first
    from a default value, and of its metadata only what can change is copied.
    """
    from omegaconf.base import Metadata
    from omegaconf.nodes import ValueNode
    from omegaconf.version import __version__

    if __version__.startswith("2.0."):
        module.copy = SimpleNamespace(deepcopy=copy_node)  # type: ignore[attr-defined]
        Metadata.__deepcopy__ = copy_metadata
        for kind in ValueNode.__subclasses__():
            kind.__deepcopy__ = copy_value


def copy_node(value: Any) -> Any:
    """A deep copy; that of a node keeps its parent."""
    parent = getattr(value, "__dict__", {}).get("_parent")
    return copy.deepcopy(value, {id(parent): parent})


def copy_value(node: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of a node without children."""
    result = object.__new__(type(node))
    node._deepcopy_impl(result, memo)
    return result


def copy_metadata(metadata: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of a node's metadata: two dictionaries; types and a key do not change."""
    result = object.__new__(type(metadata))
    cache = metadata.resolver_cache
    result.__dict__ = {
        **metadata.__dict__,
        "flags": dict(metadata.flags),
        "resolver_cache": copy.deepcopy(cache, memo) if cache else defaultdict(dict),
    }
    return result
