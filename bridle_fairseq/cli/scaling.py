"""``bridle scaling``: the training speed to expect on other numbers of GPUs, and what limits it."""

from __future__ import annotations

import argparse

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.schema import Real, check, shown

HELP = "from measured constants: clips a second on 1 to 64 GPUs, and what saturates first"
MEASURED = (
    ("gpu-clips-per-second", "of a single GPU: clips_per_second in the log of a run with --batch-size"),
    ("cpu-ms", "CPU milliseconds per clip that is read: bridle bench-loader"),
    ("clip-kb", "kilobytes of file per clip: MB/s by clips/s of bridle bench-loader"),
    ("parameters", "millions of parameters that are trained in the stage"),
)
HARDWARE = (
    ("link-gbs", "GB/s at which a GPU sends to others of its node"),
    ("network-gbs", "GB/s at which a node sends to other nodes"),
    ("storage-gbs", "GB/s at which a node reads its files; with --shared-storage all nodes together"),
    ("cores-per-gpu", "cores that read files for a GPU"),
)


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
    parser.add_argument(
        "--overlap", action="store_true", help="gradients are sent during the backward pass: pytorch_ddp"
    )


def run(args: argparse.Namespace) -> int:
    """Print a line for each number of GPUs."""
    from bridle_fairseq.training.scaling import ScalingConstants, forecast

    values = {name: getattr(args, name) for name in ScalingConstants.__dataclass_fields__}
    for name, value in [
        *values.items(),
        *(("gpus", n) for n in args.gpus),
        *(("corpus_clips", n) for n in args.corpus_clips),
    ]:
        option = f"--{name.replace('_', '-')}"
        if not isinstance(value, bool) and not value > 0:
            raise InputError(f"{option} is {shown(value)}; expected more than 0")
        if not isinstance(value, bool):
            check(Real(1e-12, 1e18), option, value)
    constants = ScalingConstants(**values)
    for clips in args.corpus_clips:
        print(f"{clips} clips: {clips * constants.clip_kb / 1e9:.3g} TB of files")
    epochs = "".join(f"  hours/epoch of {clips}" for clips in args.corpus_clips)
    print(f"GPUs  update_freq  clips/update  clips/s  of the GPUs  waiting  loader used  storage used    limit{epochs}")
    for gpus in args.gpus:
        expected = forecast(gpus, constants)
        rate = expected.clips_per_second
        used = [f"{rate / expected.capacities[name]:.0%}" for name in ("loader", "storage")]
        hours = "".join(f"{clips / rate / 3600:{17 + len(str(clips))}.3g}" for clips in args.corpus_clips)
        print(
            f"{gpus:4}  {expected.micro_batches:11}  {expected.update_clips:12}  {rate:7.0f}"
            f"  {expected.gpu_share:11.0%}  {expected.waiting:7.0%}  {used[0]:>11}  {used[1]:>12}"
            f"  {expected.limit:>7}{hours}"
        )
    return 0
