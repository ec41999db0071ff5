"""Patches needed because of the Python version."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
import sys
import types
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_CONFIG_PACKAGES = ("fairseq", "hydra")


def _derives_from_config_packages(cls: type) -> bool:
    return any(base.__module__.split(".", 1)[0] in _CONFIG_PACKAGES for base in cls.__mro__)


def allow_config_defaults(module: ModuleType) -> None:
    """Needed on Python >= 3.11: ``field: SomeConfig = SomeConfig()`` raises "mutable default ... use default_factory".

    A default counts as mutable if its class has no ``__hash__``, and ``@dataclass`` removes it. The patch restores the
    identity hash of config classes of fairseq and hydra and of their subclasses, so that such defaults are accepted.
    This keeps ``Field.default``, which fairseq's ``hydra_init`` reads and ``default_factory`` would leave empty. Other
    classes are unchanged.
    """
    original = dataclasses.dataclass
    if sys.version_info < (3, 11) or hasattr(original, "_fairseq_compat"):
        return

    @functools.wraps(original)
    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        def decorate(plain: type) -> type:
            decorated = original(plain, **options)
            if decorated.__dict__.get("__hash__", 0) is None and _derives_from_config_packages(decorated):
                decorated.__hash__ = object.__hash__  # type: ignore[method-assign, assignment]
            return decorated

        return decorate if cls is None else decorate(cls)

    dataclass.__kwdefaults__ = original.__kwdefaults__  # torch 2.6 reads the options from these
    dataclass._fairseq_compat = True  # type: ignore[attr-defined]
    dataclasses.dataclass = dataclass  # type: ignore[assignment]


def restore_typing_io(module: ModuleType) -> None:
    """Needed on Python >= 3.13: antlr4-python3-runtime 4.8, pinned by hydra, runs ``from typing.io import TextIO``."""
    if sys.version_info >= (3, 13) and "typing.io" not in sys.modules:
        alias = types.ModuleType("typing.io")
        alias.IO, alias.TextIO, alias.BinaryIO = typing.IO, typing.TextIO, typing.BinaryIO  # type: ignore[attr-defined]
        sys.modules["typing.io"] = alias


def fix_hydra_error_report(module: ModuleType) -> None:
    """Needed on Python >= 3.10: ``traceback.print_exception`` no longer takes ``etype=``.

    hydra 1.0.7 reports an exception of the job with ``print_exception(etype=None, value=..., tb=...)``. Without the
    patch, the user sees a TypeError from hydra instead of the actual error.
    """
    report = module.print_exception

    def print_exception(etype: Any = None, value: Any = None, tb: Any = None, **options: Any) -> None:
        report(type(value), value, tb, **options)

    module.print_exception = print_exception  # type: ignore[attr-defined]


class _Importer:
    """The two removed importer methods that hydra's plugin scan calls."""

    def find_module(self, name: str) -> _Importer:
        return self

    def load_module(self, name: str) -> ModuleType:
        return importlib.import_module(name)


def _walk_packages(*args: Any, **options: Any) -> Iterator[tuple[_Importer, str, bool]]:
    for info in pkgutil.walk_packages(*args, **options):
        yield _Importer(), info.name, info.ispkg


def fix_hydra_plugin_scan(module: ModuleType) -> None:
    """Needed on Python >= 3.12, which removed ``find_module``: hydra 1.0.7 calls it when it scans for plugins."""
    if sys.version_info >= (3, 12):
        module.pkgutil = types.SimpleNamespace(walk_packages=_walk_packages)  # type: ignore[attr-defined]
