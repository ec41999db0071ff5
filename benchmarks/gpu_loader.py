"""The data loader alone beside a GPU: clips per second from FLAC, by number of processes.

    python benchmarks/gpu_loader.py DATA [--seconds 45] [--dry-run]

DATA is a folder of gpu_data.py. Clips of 10.24 s as `base` reads them, then words of one second as `small` does. Each
number of processes is measured for an equal share of the time; those that are left when it is over are left out.
--dry-run: one process, half a second.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from results import result

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.data.manifests.manifest import Manifest  # noqa: E402
from bridle_fairseq.data.manifests.skipped import SkipLog  # noqa: E402
from bridle_fairseq.training.loader_speed import LoaderOptions, measure_loader  # noqa: E402

KINDS = {"clips of 10.24 s": ("long/train.tsv", 163840), "words of 1 s": ("words/train_many.tsv", 32000)}


def main() -> None:
    """Measure, and print one line for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=45, help="of all together, about")
    parser.add_argument("--dry-run", action="store_true", help="one process, half a second")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [1] if args.dry_run else sorted({1, 4, min(12, cores), cores}, reverse=True)
    begin = time.perf_counter()
    for what, (name, samples) in KINDS.items():
        path = args.data / name
        manifest = Manifest.read(path)
        for workers in counts:
            if time.perf_counter() - begin > args.seconds:
                break
            seconds = 0.5 if args.dry_run else args.seconds / (len(KINDS) * len(counts)) - 1  # processes start, too
            overrides = [f"task.max_sample_size={samples}"]
            options = LoaderOptions(str(path), "audio", 4 if args.dry_run else 64, None, workers, seconds, overrides)
            with tempfile.TemporaryDirectory() as folder:
                speed = measure_loader(options, manifest, SkipLog(manifest, Path(folder, "skipped.tsv")))
            rate, cpu = speed.clips / speed.seconds, 1000 * speed.cpu_seconds / speed.clips
            result(f"{what}, {workers} processes", f"{rate:.0f} clips/s, {cpu:.2f} ms of CPU a clip")


if __name__ == "__main__":
    main()
