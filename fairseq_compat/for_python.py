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

    A default counts as mutable when its class has no ``__hash__``, and ``@dataclass`` removes it. Giving the config
    classes of fairseq and hydra (and those derived from them) the identity hash back lets such defaults pass, and keeps
    ``Field.default``, which fairseq's ``hydra_init`` reads and which ``default_factory`` would leave empty. No other
    class is touched.
    """
    original = dataclasses.dataclass
    if sys.version_info < (3, 11) or hasattr(original, "_fairseq_compat"):
        return

    @functools.wraps(original)
    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        def decorate(plain: type) -> type:
            made = original(plain, **options)
            if made.__dict__.get("__hash__", 0) is None and _derives_from_config_packages(made):
                made.__hash__ = object.__hash__  # type: ignore[method-assign, assignment]
            return made

        return decorate if cls is None else decorate(cls)

    dataclass.__kwdefaults__ = original.__kwdefaults__  # torch 2.6 asks them which options there are
    dataclass._fairseq_compat = True  # type: ignore[attr-defined]
    dataclasses.dataclass = dataclass  # type: ignore[assignment]


def restore_typing_io(module: ModuleType) -> None:
    """Needed on Python >= 3.13: antlr4-python3-runtime 4.8 (a pin of hydra) does ``from typing.io import TextIO``."""
    if sys.version_info >= (3, 13) and "typing.io" not in sys.modules:
        alias = types.ModuleType("typing.io")
        alias.IO, alias.TextIO, alias.BinaryIO = typing.IO, typing.TextIO, typing.BinaryIO  # type: ignore[attr-defined]
        sys.modules["typing.io"] = alias


def mend_hydra_error_report(module: ModuleType) -> None:
    """Needed on Python >= 3.10: ``traceback.print_exception`` has no ``etype=`` any more.

    hydra 1.0.7 reports an exception of the job with ``print_exception(etype=None, value=..., tb=...)``, so the user
    would read a TypeError of hydra's in place of the error.
    """
    report = module.print_exception

    def print_exception(etype: Any = None, value: Any = None, tb: Any = None, **options: Any) -> None:
        report(type(value), value, tb, **options)

    module.print_exception = print_exception  # type: ignore[attr-defined]


class _Importer:
    """The two old methods of an importer that hydra's plugin scan calls."""

    def find_module(self, name: str) -> _Importer:
        return self

    def load_module(self, name: str) -> ModuleType:
        return importlib.import_module(name)


def _walk_packages(*args: Any, **options: Any) -> Iterator[tuple[_Importer, str, bool]]:
    for found in pkgutil.walk_packages(*args, **options):
        yield _Importer(), found.name, found.ispkg


def mend_hydra_plugin_scan(module: ModuleType) -> None:
    """Needed on Python >= 3.12: finders lost ``find_module``, which hydra 1.0.7 calls while it scans for plugins."""
    if sys.version_info >= (3, 12):
        module.pkgutil = types.SimpleNamespace(walk_packages=_walk_packages)  # type: ignore[attr-defined]
