"""Training speed of two gloo ranks with one thread each, relative to one process with two threads.

    python benchmarks/ranks.py [--rounds 5] [--updates 40] [--config-name tiny] [--busy] [KEY=VALUE ...]

Both run fairseq-hydra-train with the same configuration, generated sounds and clips per update, in turn: one run each
per round. A run has an encoder stage and a tokenizer stage. The speed in a stage is measured from the arrival of log
lines, which excludes the start of processes, loaders and codebooks. Prints the ratio of the medians over the rounds,
with the quartiles of the rounds' ratios.

Clips per second are meaningful only on an idle machine: two threads synchronize at every operation and suffer more from
other processes than ranks, which synchronize once per update. The total CPU time per clip, compared with one process
with one thread, also shows the cost of ranks on a busy machine. --busy measures only that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from bridle_fairseq.training.configs import EXAMPLES
from bridle_fairseq.training.launch import TrainingRun
from bridle_fairseq.training.log import parse_line

CONFIG = EXAMPLES / "audio/config/pretraining"
LOG_INTERVAL = 5
SKIPPED_LINES = 2  # at the start of a stage: codebooks are initialized, and the first batches are slow
STAGES = ("encoder", "tokenizer")
LAYOUTS = {"process of 1 thread": (1, 1), "process of 2 threads": (1, 2), "2 ranks of 1 thread": (2, 1)}


def write_sounds(folder: Path, clips: int, seconds: float) -> None:
    """Write sounds of noise with tones, ``train.tsv``, and the ``valid.tsv`` that fairseq requires."""
    random = np.random.default_rng(0)
    with open(folder / "train.tsv", "w", encoding="utf-8") as manifest:
        manifest.write(f"{folder}\n")
        for number in range(clips):
            time_points = np.arange(int(seconds * 16000)) / 16000
            tone = np.sin(2 * np.pi * random.uniform(100, 4000) * time_points) * (time_points > random.uniform(0, 1))
            sound = 0.1 * tone + 0.02 * random.standard_normal(len(time_points))
            soundfile.write(folder / f"{number}.flac", sound, 16000)
            manifest.write(f"{number}.flac\t{len(sound)}\n")
    (folder / "valid.tsv").write_bytes((folder / "train.tsv").read_bytes())


def command(ranks: int, data: Path, args: argparse.Namespace) -> list[str]:
    """The command of a training run on this many ranks."""
    stages = ",".join(f"{{kind:{kind},updates:{args.updates},lr:5.0e-4,warmup_updates:10}}" for kind in STAGES)
    overrides = [
        f"common.log_interval={LOG_INTERVAL}",
        f"task.data={data}",
        f"dataset.batch_size={args.clips // ranks}",
        "dataset.disable_validation=true",
        "checkpoint.no_save=true",
        f"model.stages=[{stages}]",
        *args.overrides,
    ]
    train = TrainingRun(CONFIG, args.config_name, data / "saves", data / "run", overrides, cpu=True).command()
    if ranks == 1:
        return train
    launch = [str(Path(sys.executable).with_name("torchrun")), "--standalone", f"--nproc_per_node={ranks}"]
    settings = ["distributed_world_size=2", "distributed_backend=gloo"]
    return [*launch, *train, *(f"distributed_training.{setting}" for setting in settings)]


def cpu_seconds(root: int) -> float:
    """CPU seconds so far of a process and of its live descendants (Linux)."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        process = int(stat.parent.name)
        parents[process], used[process] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    family = {root}
    while children := {process for process, parent in parents.items() if parent in family} - family:
        family |= children
    return sum(used.get(process, 0.0) for process in family)


def run(ranks: int, threads: int, data: Path, args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Clips per second of wall time, and CPU seconds per clip, of each stage."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command(ranks, data, args), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    clocks: dict[int, tuple[float, float]] = {}  # update -> wall seconds, CPU seconds
    lines = []
    for line in process.stdout:
        lines.append(line)
        record = parse_line(line)
        if record is not None and record.update % LOG_INTERVAL == 0:
            clocks.setdefault(record.update, (time.perf_counter(), cpu_seconds(process.pid)))
    if process.wait():
        sys.exit("".join(lines[-30:]))
    speeds = {}
    for number, stage in enumerate(STAGES):
        first, last = number * args.updates + SKIPPED_LINES * LOG_INTERVAL, (number + 1) * args.updates - LOG_INTERVAL
        clips = (last - first) * args.clips
        (start, cpu_start), (end, cpu_end) = clocks[first], clocks[last]
        speeds[stage] = clips / (end - start), (cpu_end - cpu_start) / clips
    return speeds


def spread(over: list[float], under: list[float]) -> str:
    """Ratio of the medians, and the quartiles of the rounds' ratios."""
    first, _, third = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return f"{statistics.median(over) / statistics.median(under):.2f} ({first:.2f} to {third:.2f})"


def main() -> None:
    """Run all layouts in turn and print their speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=40, help="updates of each of the two stages")
    parser.add_argument("--clips", type=int, default=32, help="clips per update")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a clip")
    parser.add_argument("--config-name", default="tiny")
    parser.add_argument("--busy", action="store_true", help="skip the process of 2 threads")
    parser.add_argument("overrides", nargs="*", help="overrides for fairseq-hydra-train, used in all runs")
    args = parser.parse_args()
    layouts = {layout: size for layout, size in LAYOUTS.items() if not (args.busy and size == (1, 2))}
    speeds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_sounds(Path(folder), 16 * args.clips, args.seconds)
        for number in range(args.rounds):
            for layout, (ranks, threads) in layouts.items():
                for stage, speed in run(ranks, threads, Path(folder), args).items():
                    speeds.setdefault((stage, layout), []).append(speed)
                    print(f"round {number + 1}, {layout}, {stage}: {speed[0]:.1f} clips/s", file=sys.stderr, flush=True)
    for stage in STAGES:
        rates, cpu = ({layout: [speed[i] for speed in speeds[stage, layout]] for layout in layouts} for i in range(2))
        for layout in layouts:
            rate, milliseconds = statistics.median(rates[layout]), 1e3 * statistics.median(cpu[layout])
            print(f"{stage:9}  {layout:20}  {rate:7.1f} clips/s  {milliseconds:6.1f} ms of CPU per clip")
        one, two, ranks = LAYOUTS
        if two in layouts:
            print(f"{stage:9}  clips/s, ranks / 2 threads: {spread(rates[ranks], rates[two])}")
        print(f"{stage:9}  CPU per clip, ranks / 1 thread: {spread(cpu[ranks], cpu[one])}")


if __name__ == "__main__":
    main()
