"""Patches needed because of torch and torchaudio."""

from __future__ import annotations

import argparse
import collections
import functools
import typing
from types import ModuleType
from typing import Any

import numpy as np
import torch

_BUILTINS = (dict, list, tuple, set, int, float, str, bool, collections.OrderedDict, collections.defaultdict)
_DTYPE_CODES = "?bhilqBHILQefd"


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

    plain = [nodes.AnyNode, nodes.BooleanNode, nodes.EnumNode, nodes.FloatNode, nodes.IntegerNode, nodes.StringNode]
    return [argparse.Namespace, DictConfig, ListConfig, ContainerMetadata, Metadata, *plain, typing.Any]


def _numpy_types() -> list[Any]:
    multiarray = (getattr(np, "_core", None) or np.core).multiarray
    types: list[Any] = [np.dtype, np.ndarray, multiarray.scalar, multiarray._reconstruct]
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 7):  # torch 2.6 knows no (object, name) pairs
        for package in ("numpy.core", "numpy._core"):  # a checkpoint names them as the NumPy that wrote it does: 1 or 2
            types += [(getattr(multiarray, name), f"{package}.multiarray.{name}") for name in ("scalar", "_reconstruct")]
    return types + sorted({type(np.dtype(code)) for code in _DTYPE_CODES}, key=repr)


def allow_checkpoint_types(module: ModuleType) -> None:
    """Needed on torch >= 2.6: ``torch.load`` is ``weights_only`` and rejects what checkpoints of fairseq hold.

    They hold dictionaries, meters, configurations and NumPy scalars; and what one rank broadcasts to the others on a restart holds
    fairseq's placeholders for tensors. The patch is an allow-list of these types: loading stays ``weights_only``, and a checkpoint
    with any other type in it is still rejected. For one that you trust, add its types with
    ``torch.serialization.add_safe_globals``.
    """
    torch.serialization.add_safe_globals([*_BUILTINS, *_fairseq_types(), *_config_types(), *_numpy_types()])


def gather_lists_without_cuda(module: ModuleType) -> None:
    """Needed on every version: ``all_gather_list`` of fairseq allocates its buffers on CUDA and pins memory, whatever the backend.

    Where the process group is not NCCL, it is handed CPU buffers of the right size, which it then uses as they are.
    """
    original = module.all_gather_list

    @functools.wraps(original)
    def all_gather_list(data: Any, group: Any = None, max_size: int = 16384) -> list[Any]:
        group = module.get_global_group() if group is None else group
        if not module.use_xla() and torch.distributed.get_backend(group) != "nccl":
            _use_cpu_buffers(all_gather_list, max_size * module.get_world_size(group=group), max_size)
        return original(data, group=group, max_size=max_size)

    module.all_gather_list = all_gather_list  # type: ignore[attr-defined]


def _use_cpu_buffers(function: Any, total: int, own: int) -> None:
    buffer, cpu_buffer = getattr(function, "_buffer", None), getattr(function, "_cpu_buffer", None)
    if buffer is None or buffer.is_cuda or buffer.numel() < total:
        function._buffer = torch.zeros(total, dtype=torch.uint8)
    if cpu_buffer is None or cpu_buffer.numel() < own:
        function._cpu_buffer = torch.zeros(own, dtype=torch.uint8)


def import_torchaudio_beside_cpu_torch(module: ModuleType) -> None:
    """Needed on torchaudio 2.x of PyPI for Linux beside a CPU build of torch: its C++ part wants CUDA's libraries.

    It then goes on without that part, as it does where the library file is missing; the Python part (``compliance.kaldi``,
    ``functional.resample``, transforms) works.
    """
    if torch.version.cuda is not None:
        return
    load = module._load_lib

    @functools.wraps(load)
    def load_if_possible(name: str) -> bool:
        try:
            return load(name)
        except OSError:
            return False

    module._load_lib = load_if_possible  # type: ignore[attr-defined]
