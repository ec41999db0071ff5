"""Patches needed because of torch and torchaudio. torch is imported inside them: hydra alone must not bring it in."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from types import ModuleType
from typing import Any


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


def _named_in(module: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under another module's name; torch 2.6 takes no (object, name) pairs on its allow-list."""

    def alias(*args: Any) -> Any:
        return function(*args)

    alias.__module__, alias.__name__, alias.__qualname__ = module, function.__name__, function.__name__
    return alias


def _numpy_types() -> list[Any]:
    import numpy as np

    multiarray = (getattr(np, "_core", None) or np.core).multiarray
    packages = ("numpy.core", "numpy._core")  # as NumPy 1 and as NumPy 2 name it in a checkpoint
    functions = [
        _named_in(f"{package}.multiarray", function)
        for package in packages
        for function in (multiarray.scalar, multiarray._reconstruct)
    ]
    return [np.dtype, np.ndarray, *functions, *{type(np.dtype(code)) for code in "?bhilqBHILQefd"}]


def allow_checkpoint_types(module: ModuleType) -> None:
    """Needed on torch >= 2.6: ``torch.load`` is ``weights_only`` and rejects what checkpoints of fairseq hold.

    They hold dictionaries, meters, configurations and NumPy scalars; and what one rank broadcasts to the others on a
    restart holds fairseq's placeholders for tensors. The patch is an allow-list of these types: loading stays
    ``weights_only``, and a checkpoint with any other type in it is still rejected. For one that you trust, add its
    types with ``torch.serialization.add_safe_globals``.
    """
    import torch

    torch.serialization.add_safe_globals([*_plain_types(), *_fairseq_types(), *_config_types(), *_numpy_types()])


def gather_lists_without_cuda(module: ModuleType) -> None:
    """Needed on every version: ``all_gather_list`` of fairseq allocates CUDA and pinned memory, whatever the backend.

    Where the process group is not NCCL's, it is handed CPU buffers of the right size, which it then uses as they are.
    """
    import torch

    original = module.all_gather_list

    @functools.wraps(original)
    def all_gather_list(data: Any, group: Any = None, max_size: int = 16384) -> list[Any]:
        group = module.get_global_group() if group is None else group
        if not module.use_xla() and torch.distributed.get_backend(group) != "nccl":
            # fairseq keeps its buffers as attributes of the function that it finds under this name: this one.
            all_gather_list._buffer = torch.empty(max_size * module.get_world_size(group=group), dtype=torch.uint8)
            all_gather_list._cpu_buffer = torch.empty(max_size, dtype=torch.uint8)
        return original(data, group=group, max_size=max_size)

    module.all_gather_list = all_gather_list  # type: ignore[attr-defined]


def wrap_cpu_models_for_ddp(module: ModuleType) -> None:
    """Needed on every version: fairseq's ``pytorch_ddp`` names a GPU for each rank, and torch refuses that on a CPU.

    A model on the CPU is wrapped without; gloo then does what NCCL does on GPUs.
    """
    wrap = module.DistributedDataParallel

    @functools.wraps(wrap)
    def distributed_data_parallel(*args: Any, **options: Any) -> Any:
        model = args[0] if args else options["module"]
        if all(parameter.device.type == "cpu" for parameter in model.parameters()):
            options.update(device_ids=None, output_device=None)
        return wrap(*args, **options)

    module.DistributedDataParallel = distributed_data_parallel  # type: ignore[attr-defined]


def close_process_groups(module: ModuleType) -> None:
    """Needed on every version: fairseq leaves its process groups open when a distributed run has ended.

    The threads of gloo then live on while the interpreter shuts down, which now and then aborts the process with
    "terminate called without an active exception" (pytorch/pytorch#190489): a training that went well ends with a
    non-zero exit code. After an error nothing is closed: other ranks may still be inside a collective.
    """
    import torch

    original = module.distributed_main

    @functools.wraps(original)
    def distributed_main(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            vars(module.get_global_group).pop("_global_group", None)  # a reference that would keep the group open
            gc.collect()  # a trainer refers to groups too, and to itself
            torch.distributed.destroy_process_group()

    module.distributed_main = distributed_main  # type: ignore[attr-defined]


def import_torchaudio_beside_cpu_torch(module: ModuleType) -> None:
    """Needed on torchaudio 2.x of PyPI for Linux beside a CPU build of torch: its C++ part wants CUDA's libraries.

    It then goes on without that part, as it does where the library file is missing; the Python part
    (``compliance.kaldi``, ``functional.resample``, transforms) works.
    """
    import torch

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


def import_torchvision_beside_cpu_torch(module: ModuleType) -> None:
    """Needed on torchvision 0.21 and newer of PyPI for Linux beside a CPU build of torch: its C++ part wants CUDA's.

    It goes on without that part, but then describes operators of it that nobody has declared. Declared they cannot be
    called, and the Python part (``transforms.v2``) works.
    """
    import torch

    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
