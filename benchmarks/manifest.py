"""Cost of a manifest of two million rows: time to read it, to batch it and to shuffle an epoch, memory of 8 workers.

    python benchmarks/manifest.py [--rows 2000000] [--workers 8]

Workers are forked, like those of a data loader. Each shuffles the rows of an epoch and reads its share of them. Memory
is the proportional set size of the workers and of the process that read the manifest (Linux), minus that of the same
processes without it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.data.audio.dataset import AudioDataset  # noqa: E402
from bridle_fairseq.data.manifests.manifest import Manifest  # noqa: E402
from bridle_fairseq.data.sampling import BucketShuffle  # noqa: E402

MAX_TOKENS = 163840 * 16


def write_manifest(folder: Path, rows: int) -> Path:
    """A manifest with this many rows, over 1000 symbolic links to one folder of 64 short files."""
    (folder / "files").mkdir()
    for number in range(64):
        soundfile.write(folder / "files" / f"Y{number:011d}_abcdef.wav", np.zeros(160), 16000)
    for number in range(1000):
        (folder / f"part{number:03d}").symlink_to("files")
    with open(folder / "train.tsv", "w", encoding="utf-8") as file:
        file.write(f"{folder}\n")
        for row in range(rows):
            file.write(f"part{row % 1000:03d}/Y{row % 64:011d}_abcdef.wav\t{160000 + row % 3000}\n")
    return folder / "train.tsv"


def proportional_megabytes(process: str) -> float:
    """Proportional set size of a process: shared memory is divided among the processes that share it."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def run_worker(data: tuple[AudioDataset, BucketShuffle] | None, number: int, workers: int, done, leave) -> None:
    """Shuffle, read a worker's share of the rows, then wait."""
    if data is not None:
        dataset, shuffle = data
        rows = shuffle.rows(2)
        for slot in range(number, len(rows), workers * 50):
            dataset.manifest.path(int(rows[slot]))
        int(shuffle.sizes[number::workers].sum())
    done.release()
    leave.wait()


def memory(data: tuple[AudioDataset, BucketShuffle] | None, workers: int) -> float:
    """Megabytes of this process and of its workers while all workers hold the data set."""
    context = multiprocessing.get_context("fork")
    done, leave = context.Semaphore(0), context.Event()
    processes = [
        context.Process(target=run_worker, args=(data, number, workers, done, leave)) for number in range(workers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        done.acquire()
    total = proportional_megabytes("self") + sum(proportional_megabytes(str(process.pid)) for process in processes)
    leave.set()
    for process in processes:
        process.join()
    return total


def main() -> None:
    """Measure time and memory, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--workers", type=int, default=8)
    args = parser.parse_args()
    from fairseq.data.data_utils import batch_by_size

    with tempfile.TemporaryDirectory() as folder:
        path = write_manifest(Path(folder), args.rows)
        before = memory(None, args.workers)
        start = time.perf_counter()
        manifest = Manifest.read(path)
        read_seconds = time.perf_counter() - start
        start = time.perf_counter()
        dataset = AudioDataset(manifest, training=True, max_sample_size=163840)
        dataset_seconds = time.perf_counter() - start
        start = time.perf_counter()
        order = dataset.ordered_indices()
        shuffle = BucketShuffle(order, dataset.sizes[order], dataset.num_buckets, dataset.seed)
        slots = np.arange(len(order))
        batches = batch_by_size(slots, shuffle.sizes.__getitem__, shuffle.sizes, max_tokens=MAX_TOKENS)
        batch_seconds = time.perf_counter() - start
        num_batches = len(batches)
        start = time.perf_counter()
        shuffle.rows(2)
        shuffle_seconds = time.perf_counter() - start
        del batches, order, slots
        used = memory((dataset, shuffle), args.workers) - before
    print(
        f"{args.rows} rows read in {read_seconds:.2f} s; 100,000 files checked and sizes set in {dataset_seconds:.2f} s"
    )
    print(f"{num_batches} batches in {batch_seconds:.2f} s; rows of a later epoch shuffled in {shuffle_seconds:.2f} s")
    print(f"memory of this process and {args.workers} workers: {used:.0f} MB more than without the manifest")


if __name__ == "__main__":
    main()
