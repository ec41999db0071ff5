"""``bridle scaling``: what a run would reach on other numbers of GPUs, and what would hold it up there first.

Arithmetic over constants, none of which is guessed here: those of model and data come from measurements, those of the
hardware from its data sheet.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from bridle_fairseq.utils.errors import InputError

HELP = "from measured constants: clips a second on 1 to 64 GPUs, and what saturates first"
BACKWARD_SHARE = 2 / 3  # of a step: twice the products of its forward pass

MEASURED = (
    ("gpu-clips-per-second", "one GPU by itself: clips_per_second in the log of a run with --batch-size"),
    ("cpu-ms", "CPU milliseconds of reading a clip: bridle bench-loader"),
    ("clip-kb", "kilobytes of file that a clip takes: MB/s by clips/s of bridle bench-loader"),
    ("parameters", "millions of parameters that learn in the stage"),
)
HARDWARE = (
    ("link-gbs", "GB/s at which a GPU sends to others of its node"),
    ("network-gbs", "GB/s at which a node sends to other nodes"),
    ("storage-gbs", "GB/s at which a node reads its files; with --shared-storage all nodes together"),
    ("cores-per-gpu", "cores that read files for a GPU"),
)


@dataclass(frozen=True)
class Constants:
    """What a forecast follows from; see the arguments of the command."""

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
    """What so many GPUs would reach."""

    micro_batches: int  # of a GPU in an update: update_freq
    update_clips: int  # of all GPUs
    waiting: float  # share of an update in which GPUs wait for gradients of others
    capacities: dict[str, float]  # clips/s that each part of the system would allow by itself
    gpu_share: float  # clips/s beside as many GPUs by themselves

    @property
    def clips_per_second(self) -> float:
        """What the slowest part allows."""
        return min(self.capacities.values())

    @property
    def limit(self) -> str:
        """The slowest part; for GPUs that mostly wait for each other, the network."""
        slowest = min(self.capacities, key=lambda name: self.capacities[name])
        return "network" if slowest == "GPUs" and self.waiting > 0.5 else slowest


def forecast(gpus: int, c: Constants) -> Forecast:
    """A forecast for so many GPUs.

    Gradients are summed in two rings, over the GPUs of a node and over the nodes: of n that send to each other each
    sends 2 (n - 1) / n of them (Patarasuk and Yuan 2009). With ``overlap`` (``pytorch_ddp``) that begins with the
    backward pass of the last micro-batch, else after it. Latency is left out: an update has about seven collectives.
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle scaling``."""
    for title, names in (("measured", MEASURED), ("hardware, from its data sheet", HARDWARE)):
        group = parser.add_argument_group(title)
        for name, text in names:
            group.add_argument(f"--{name}", type=float, required=True, metavar="X", help=text)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], metavar="N")
    parser.add_argument("--gpus-per-node", type=int, default=8, metavar="N", help="%(default)s")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="clips of a GPU at once (%(default)s)")
    parser.add_argument("--update-clips", type=int, default=1024, metavar="N", help="of an update (%(default)s)")
    parser.add_argument("--corpus-clips", type=int, nargs="+", default=[], metavar="N", help="for the time of an epoch")
    parser.add_argument("--gradient-bytes", type=int, default=4, metavar="N", help="2 with common.bf16 (%(default)s)")
    parser.add_argument("--shared-storage", action="store_true", help="all nodes read from the same storage")
    parser.add_argument("--overlap", action="store_true", help="gradients are sent while others are made: pytorch_ddp")


def run(args: argparse.Namespace) -> int:
    """Print a line for each number of GPUs."""
    values = {name: getattr(args, name) for name in Constants.__dataclass_fields__}
    for name, value in [
        *values.items(),
        *(("gpus", n) for n in args.gpus),
        *(("corpus_clips", n) for n in args.corpus_clips),
    ]:
        if not isinstance(value, bool) and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected more than 0")
    constants = Constants(**values)
    for clips in args.corpus_clips:
        print(f"{clips} clips: {clips * constants.clip_kb / 1e9:.3g} TB of files")
    epochs = "".join(f"  hours/epoch of {clips}" for clips in args.corpus_clips)
    print(f"GPUs  update_freq  clips/update  clips/s  of the GPUs  waiting  loader used  storage used    limit{epochs}")
    for gpus in args.gpus:
        found = forecast(gpus, constants)
        rate = found.clips_per_second
        used = [f"{rate / found.capacities[name]:.0%}" for name in ("loader", "storage")]
        hours = "".join(f"{clips / rate / 3600:{17 + len(str(clips))}.3g}" for clips in args.corpus_clips)
        print(
            f"{gpus:4}  {found.micro_batches:11}  {found.update_clips:12}  {rate:7.0f}  {found.gpu_share:11.0%}"
            f"  {found.waiting:7.0%}  {used[0]:>11}  {used[1]:>12}  {found.limit:>7}{hours}"
        )
    return 0
