"""Two gloo ranks of one thread against one process of two threads: clips a second of the real command, as a ratio.

    python benchmarks/ranks.py [--rounds 5] [--updates 40] [--config-name tiny] [--busy] [KEY=VALUE ...]

Both train the configuration on the same made sounds with the same number of clips an update, in turns: one run of each
a round. A run has a stage of the encoder and one of the tokenizer; its speed in a stage is taken from the arrival of
its log lines, so that the start of processes, loaders and codebooks does not count. The result is the median over the
rounds, with the quartiles of the rounds' ratios.

Clips a second mean something on a machine that does nothing else: two threads that wait for each other at every
operation lose more to other work than ranks do, which wait once an update. The CPU time a clip of all processes
together, beside that of one process of one thread, shows on a busy machine, too, what ranks cost besides waiting;
--busy measures that alone.
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

from bridle_fairseq.training.launch import EXAMPLES, TrainingRun
from bridle_fairseq.training.log import parse_line

CONFIG = EXAMPLES / "audio/config/pretraining"
LOG_INTERVAL = 5
SKIPPED_LINES = 2  # of a stage: it begins with new codebooks, and the first batches are slow
STAGES = ("encoder", "tokenizer")
WAYS = {"process of 1 thread": (1, 1), "process of 2 threads": (1, 2), "2 ranks of 1 thread": (2, 1)}


def write_sounds(folder: Path, clips: int, seconds: float) -> None:
    """``train.tsv`` and its files, noise in which tones come and go; and the ``valid.tsv`` that fairseq asks for."""
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
    """A run of the configuration by so many ranks."""
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
    more = ["distributed_world_size=2", "distributed_backend=gloo"]
    return [*launch, *train, *(f"distributed_training.{setting}" for setting in more)]


def cpu_seconds(root: int) -> float:
    """CPU time so far of a process and of all below it that are alive (Linux)."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        process = int(stat.parent.name)
        parents[process], used[process] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    family = {root}
    while more := {process for process, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(used.get(process, 0.0) for process in family)


def run(ranks: int, threads: int, data: Path, args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Clips a second by the clock, and CPU seconds a clip, of each stage."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command(ranks, data, args), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    seen: dict[int, tuple[float, float]] = {}
    text = []
    for line in process.stdout:
        text.append(line)
        record = parse_line(line)
        if record is not None and record.update % LOG_INTERVAL == 0:
            seen.setdefault(record.update, (time.perf_counter(), cpu_seconds(process.pid)))
    if process.wait():
        sys.exit("".join(text[-30:]))
    speeds = {}
    for number, stage in enumerate(STAGES):
        first, last = number * args.updates + SKIPPED_LINES * LOG_INTERVAL, (number + 1) * args.updates - LOG_INTERVAL
        clips = (last - first) * args.clips
        (begun, cpu_before), (ended, cpu_after) = seen[first], seen[last]
        speeds[stage] = clips / (ended - begun), (cpu_after - cpu_before) / clips
    return speeds


def spread(over: list[float], under: list[float]) -> str:
    """Ratio of the medians, and the quartiles of the rounds' ratios."""
    first, _, third = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return f"{statistics.median(over) / statistics.median(under):.2f} ({first:.2f} to {third:.2f})"


def main() -> None:
    """Run both in turns and print their speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=40, help="of each of the two stages")
    parser.add_argument("--clips", type=int, default=32, help="of an update")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a clip")
    parser.add_argument("--config-name", default="tiny")
    parser.add_argument("--busy", action="store_true", help="without the process of 2 threads")
    parser.add_argument("overrides", nargs="*", help="settings of fairseq-hydra-train, for both")
    args = parser.parse_args()
    ways = {way: how for way, how in WAYS.items() if not (args.busy and how == (1, 2))}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_sounds(Path(folder), 16 * args.clips, args.seconds)
        for number in range(args.rounds):
            for way, (ranks, threads) in ways.items():
                for stage, speed in run(ranks, threads, Path(folder), args).items():
                    found.setdefault((stage, way), []).append(speed)
                    print(f"round {number + 1}, {way}, {stage}: {speed[0]:.1f} clips/s", file=sys.stderr, flush=True)
    for stage in STAGES:
        rates, cpu = ({way: [speed[i] for speed in found[stage, way]] for way in ways} for i in range(2))
        for way in ways:
            rate, milliseconds = statistics.median(rates[way]), 1e3 * statistics.median(cpu[way])
            print(f"{stage:9}  {way:20}  {rate:7.1f} clips/s  {milliseconds:6.1f} ms of CPU a clip")
        one, two, ranks = WAYS
        if two in ways:
            print(f"{stage:9}  clips/s, ranks / 2 threads: {spread(rates[ranks], rates[two])}")
        print(f"{stage:9}  CPU a clip, ranks / 1 thread: {spread(cpu[ranks], cpu[one])}")


if __name__ == "__main__":
    main()
