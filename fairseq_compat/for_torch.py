"""Patches needed because of torch, torchaudio and torchvision.

They import torch inside the functions, so that importing hydra alone does not import torch.
"""

from __future__ import annotations

import functools
import gc
from types import ModuleType
from typing import Any


def gather_lists_without_cuda(module: ModuleType) -> None:
    """Needed on every version: fairseq's ``all_gather_list`` allocates CUDA and pinned memory for every backend.

    For backends other than NCCL, the patch allocates CPU buffers of the right size beforehand, which fairseq reuses.
    """
    import torch

    original = module.all_gather_list

    @functools.wraps(original)
    def all_gather_list(data: Any, group: Any = None, max_size: int = 16384) -> list[Any]:
        group = module.get_global_group() if group is None else group
        if not module.use_xla() and torch.distributed.get_backend(group) != "nccl":
            # fairseq stores its buffers as attributes of the function with this name, which is now this one.
            all_gather_list._buffer = torch.empty(max_size * module.get_world_size(group=group), dtype=torch.uint8)
            all_gather_list._cpu_buffer = torch.empty(max_size, dtype=torch.uint8)
        return original(data, group=group, max_size=max_size)

    module.all_gather_list = all_gather_list  # type: ignore[attr-defined]


def wrap_cpu_models_for_ddp(module: ModuleType) -> None:
    """Needed on every version: fairseq's ``pytorch_ddp`` passes ``device_ids``, which torch rejects for CPU models.

    The patch wraps a model on the CPU without ``device_ids``, as the gloo backend requires.
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
    """Needed on every version: fairseq does not destroy its process groups at the end of a distributed run.

    The threads of gloo then outlive the interpreter's shutdown, which occasionally aborts the process with "terminate
    called without an active exception" (pytorch/pytorch#190489): a successful run exits with a non-zero code. After an
    error the groups stay open, because other ranks may still be inside a collective.
    """
    import torch

    original = module.distributed_main

    @functools.wraps(original)
    def distributed_main(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            vars(module.get_global_group).pop("_global_group", None)  # this reference would keep the group open
            gc.collect()  # a trainer holds groups too, and is part of a reference cycle
            torch.distributed.destroy_process_group()

    module.distributed_main = distributed_main  # type: ignore[attr-defined]


def allow_torchaudio_without_cuda(module: ModuleType) -> None:
    """Needed on torchaudio 2.x from PyPI for Linux with a CPU build of torch: its C++ extension needs CUDA libraries.

    The patch skips the extension, as torchaudio does when the library file is missing. The Python part
    (``compliance.kaldi``, ``functional.resample``, transforms) works without it.
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


def allow_torchvision_without_cuda(module: ModuleType) -> None:
    """Needed on torchvision >= 0.21 from PyPI for Linux with a CPU build of torch: its extension needs CUDA libraries.

    torchvision skips the extension, but then registers meta kernels for operators that the extension would have
    declared. The patch declares them without an implementation, so that the Python part (``transforms.v2``) works.
    """
    import torch

    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
