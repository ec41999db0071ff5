"""Patches for reading checkpoints: the types that they contain, and strings that fairseq evaluates.

They import torch inside the functions, so that importing hydra alone does not import torch.
"""

from __future__ import annotations

import ast
import functools
import pickle
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from fairseq_compat.for_errors import RunError

LARGEST = 1_000_000  # items of a list that a setting multiplies


def _plain_types() -> list[Any]:
    import argparse
    import collections
    import typing

    containers = [dict, list, tuple, set, collections.OrderedDict, collections.defaultdict]
    return [*containers, int, float, str, bool, argparse.Namespace, typing.Any]


def _fairseq_types() -> list[Any]:
    from fairseq.data.dictionary import Dictionary
    from fairseq.distributed.utils import _TensorPlaceholder
    from fairseq.logging.meters import AverageMeter, MetersDict, StopwatchMeter, SumMeter, TimeMeter

    return [Dictionary, _TensorPlaceholder, AverageMeter, MetersDict, StopwatchMeter, SumMeter, TimeMeter]


def _config_types() -> list[Any]:
    from omegaconf import nodes
    from omegaconf.base import ContainerMetadata, Metadata
    from omegaconf.dictconfig import DictConfig
    from omegaconf.listconfig import ListConfig

    values = [nodes.AnyNode, nodes.BooleanNode, nodes.EnumNode, nodes.FloatNode, nodes.IntegerNode, nodes.StringNode]
    return [DictConfig, ListConfig, ContainerMetadata, Metadata, *values]


def _named(module: str, name: str, value: Any) -> Any:
    """A function or class under another name: the allow-list of torch 2.6 does not accept (object, name) pairs."""
    value.__module__, value.__name__, value.__qualname__ = module, name, name
    return value


def _numpy_types() -> list[Any]:
    """Stand-ins for what NumPy's pickles call, for numbers and arrays of numbers only.

    NumPy's own are not safe with arguments from a stranger: the state of a pickled dtype can declare any memory to be
    Python objects.
    """
    import numpy as np

    codes = {f"{kind}{size}" for kind, sizes in (("i", "1248"), ("u", "1248"), ("f", "248")) for size in sizes} | {"b1"}

    class NumberType:
        """A dtype: a number's, in the byte order of this machine or another."""

        def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
            if code not in codes:
                raise ValueError(f"dtype {code!r}; expected one of numbers")
            self.dtype = np.dtype(code)

        def __setstate__(self, state: Any) -> None:
            if state[1] in ("<", ">"):
                self.dtype = self.dtype.newbyteorder(state[1])

    class NumberArray(np.ndarray):
        """An array of numbers, empty until its state is set; pickled like any other array."""

        def __new__(cls) -> NumberArray:
            return super().__new__(cls, (0,), dtype=np.uint8)

        def __setstate__(self, state: Any) -> None:
            version, shape, number, fortran, data = state
            if type(number) is not NumberType or type(data) is not bytes:
                raise ValueError("an array of objects; expected one of numbers")
            super().__setstate__((version, shape, number.dtype, fortran, data))

        def __reduce__(self) -> Any:
            return np.asarray(self).__reduce__()

    def scalar(number: Any, data: Any) -> Any:
        if type(number) is not NumberType or type(data) is not bytes or len(data) != number.dtype.itemsize:
            raise ValueError("a scalar of another type; expected a number")
        return np.frombuffer(data, dtype=number.dtype)[0]

    def reconstruct(kind: Any, shape: Any, code: Any) -> Any:
        return NumberArray()

    def variants(function: Callable[..., Any], name: str) -> list[Any]:
        modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # in checkpoints of NumPy 1 and of NumPy 2
        return [_named(module, name, lambda *args: function(*args)) for module in modules]

    return [
        _named("numpy", "dtype", NumberType),
        _named("numpy", "ndarray", NumberArray),
        *variants(scalar, "scalar"),
        *variants(reconstruct, "_reconstruct"),
    ]


def name_refused_checkpoints(module: ModuleType) -> None:
    """Needed on torch >= 2.6: a checkpoint with other types than the allowed ones ends in pages about ``weights_only``.

    The patch of ``fairseq.checkpoint_utils`` says which file refers to what, in one sentence.
    """
    load = module.load_checkpoint_to_cpu

    @functools.wraps(load)
    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return load(path, *args, **kwargs)
        except pickle.UnpicklingError as error:
            named = re.search(r"GLOBAL:? (\S+)", str(error))
            what = f"it refers to {named[1]}" if named else "it holds more than tensors, plain values and settings"
            raise RunError(
                f"{path}: {what}, so it is not loaded: it could run code. If you trust it, see "
                "torch.serialization.add_safe_globals"
            ) from error

    module.load_checkpoint_to_cpu = load_checkpoint_to_cpu  # type: ignore[attr-defined]


def allow_checkpoint_types(module: ModuleType) -> None:
    """Needed on torch >= 2.6: ``torch.load`` defaults to ``weights_only`` and rejects fairseq's checkpoints.

    They contain dictionaries, meters, configurations and NumPy's numbers. What rank 0 broadcasts on a restart also
    contains fairseq's placeholders for tensors. The patch allow-lists these types. Loading stays ``weights_only``: a
    checkpoint with any other type is still rejected. If you trust such a checkpoint, add its types with
    ``torch.serialization.add_safe_globals``.

    A file can call an allow-listed type with any arguments, and set any attributes of an instance. Of the plain types
    this makes values; of fairseq's meters, placeholders and dictionaries, and of ``Namespace``, objects with attributes
    that fairseq reads, whose methods start nothing. Configurations are an exception that fairseq's format needs: a file
    can make OmegaConf resolve ``${env:NAME}`` while it is read. Values of the environment then are in what was loaded,
    and nowhere else. NumPy's types are replaced by stand-ins.
    """
    import torch

    torch.serialization.add_safe_globals([*_plain_types(), *_fairseq_types(), *_config_types(), *_numpy_types()])


def literal(text: Any) -> Any:
    """The value of an expression of literals, ``+``, ``-`` and ``*``, such as ``[(512, 10, 5)] + [(512, 3, 2)] * 4``.

    Raises:
        ValueError: anything else, such as a name or a call.
    """
    try:
        return _value(ast.parse(text.strip() if isinstance(text, str) else "", mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        shown = repr(text)[:80]
        raise ValueError(f"{shown} cannot be evaluated; expected numbers and lists") from None


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        for items, times in ((left, right), (right, left)):
            if isinstance(items, (list, tuple, str, bytes)) and len(items) * times > LARGEST:
                raise ValueError(f"more than {LARGEST} items")
        return left * right
    return ast.literal_eval(node)  # type: ignore[arg-type]


def evaluate_literals_only(module: ModuleType) -> None:
    """Needed on every version: fairseq evaluates strings of a checkpoint's configuration as Python code.

    A stranger's checkpoint can name a model, such as wav2vec2, whose constructor calls ``eval`` on a setting, and run
    any code. These settings are lists and numbers. The patch gives the module an ``eval`` for these only.
    """
    module.eval = literal  # type: ignore[attr-defined]
