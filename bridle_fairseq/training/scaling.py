"""Forecasts of training speed on other numbers of GPUs, and of what limits it.

This is arithmetic over constants. Those of model and data are measured, those of the hardware come from its data sheet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BACKWARD_SHARE = 2 / 3  # of a step: the backward pass has twice the matrix products of the forward pass


@dataclass(frozen=True)
class ScalingConstants:
    """What a forecast is computed from.

    Attributes:
        gpu_clips_per_second: clips per second of a single GPU with ``batch_size``.
        cpu_ms: CPU milliseconds per clip that is read.
        clip_kb: kilobytes of file per clip.
        parameters: millions that are trained in the stage.
        link_gbs: GB/s at which a GPU sends to others of its node.
        network_gbs: GB/s at which a node sends to other nodes.
        storage_gbs: GB/s at which a node reads its files; with ``shared_storage`` all nodes together.
        cores_per_gpu: cores that read files.
        batch_size: clips of a GPU at once.
        update_clips: clips of an update.
        gpus_per_node: GPUs of a node.
        gradient_bytes: per parameter; 2 with bf16.
        shared_storage: all nodes read from one storage.
        overlap: gradients are sent during the backward pass (``pytorch_ddp``).
    """

    gpu_clips_per_second: float
    cpu_ms: float
    clip_kb: float
    parameters: float
    link_gbs: float
    network_gbs: float
    storage_gbs: float
    cores_per_gpu: float
    batch_size: int = 16
    update_clips: int = 1024
    gpus_per_node: int = 8
    gradient_bytes: int = 4
    shared_storage: bool = False
    overlap: bool = False


@dataclass(frozen=True)
class Forecast:
    """The expected speed of a number of GPUs."""

    micro_batches: int  # of a GPU in an update: update_freq
    update_clips: int  # of all GPUs
    waiting: float  # fraction of an update in which GPUs wait for gradients of others
    capacities: dict[str, float]  # clips/s that each component would allow by itself
    gpu_share: float  # clips/s relative to as many GPUs that do not communicate

    @property
    def clips_per_second(self) -> float:
        """The capacity of the slowest component."""
        return min(self.capacities.values())

    @property
    def limit(self) -> str:
        """The slowest component; the network if GPUs spend most of the time waiting for each other."""
        slowest = min(self.capacities, key=lambda name: self.capacities[name])
        return "network" if slowest == "GPUs" and self.waiting > 0.5 else slowest


def forecast(gpus: int, c: ScalingConstants) -> Forecast:
    """The forecast for a number of GPUs.

    Gradients are reduced in two rings, over the GPUs of a node and over the nodes. In a ring of n, each sends
    2 (n - 1) / n of the gradients (Patarasuk and Yuan 2009). With ``overlap`` this begins with the backward pass of the
    last micro-batch, else after it. Latency is ignored: an update has about seven collectives.
    """
    nodes, neighbours = math.ceil(gpus / c.gpus_per_node), min(gpus, c.gpus_per_node)
    micro_batches = max(1, math.ceil(c.update_clips / (gpus * c.batch_size)))
    step = c.batch_size / c.gpu_clips_per_second
    gigabytes = c.parameters * c.gradient_bytes / 1e3
    reduce = 2 * gigabytes * ((neighbours - 1) / neighbours / c.link_gbs + (nodes - 1) / nodes / c.network_gbs)
    waiting = max(0.0, reduce - BACKWARD_SHARE * step) if c.overlap else reduce
    update = micro_batches * step + waiting
    clips = gpus * c.batch_size * micro_batches
    capacities = {
        "GPUs": clips / update,
        "loader": gpus * c.cores_per_gpu * 1e3 / c.cpu_ms,
        "storage": c.storage_gbs * 1e6 / c.clip_kb * (1 if c.shared_storage else nodes),
    }
    share = min(capacities.values()) / (gpus * c.gpu_clips_per_second)
    return Forecast(micro_batches, clips, waiting / update, capacities, share)
