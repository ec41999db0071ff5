"""Data loading from high-latency storage: one file at a time compared with several in parallel.

    python benchmarks/late_storage.py [--latency-ms 30] [--threads 16] [--workers 2]

Generated sounds are stored in an uncompressed zip, and each read of it is delayed like a request to an object store.
Bandwidth is not limited. Data loaders with ``task.read_threads`` of 1 and of --threads read the same batches in turn. A
round is one pass over all clips. Prints the ratio of the medians over the rounds, with the quartiles of the rounds'
ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

import torch
from ranks import spread, write_sounds

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.data.audio.dataset import AudioDataset  # noqa: E402
from bridle_fairseq.data.manifests import archive  # noqa: E402
from bridle_fairseq.data.manifests.manifest import Manifest  # noqa: E402
from bridle_fairseq.tasks.datasets import FairseqMedia  # noqa: E402

CLIPS, BATCH_SIZE = 512, 16


def zipped(folder: Path, clips: int) -> Manifest:
    """A manifest of sounds of 2 s in an uncompressed archive."""
    write_sounds(folder, clips, seconds=2.0)
    sizes = dict(Manifest.read(folder / "train.tsv"))
    with zipfile.ZipFile(folder / "sounds.zip", "w") as file:
        for name in sizes:
            file.write(folder / name, name)
    members = list(archive.members(folder / "sounds.zip"))
    paths = [f"sounds.zip:{offset}:{length}" for _, offset, length in members]
    return Manifest(folder, paths, [sizes[name] for name, _, _ in members])


def main() -> None:
    """Time both loaders and print clips per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    pread = os.pread

    def delayed_pread(*request: int) -> bytes:
        time.sleep(args.latency_ms / 1000)
        return pread(*request)

    rates: dict[int, list[float]] = {1: [], args.threads: []}
    with tempfile.TemporaryDirectory() as folder:
        media = AudioDataset(zipped(Path(folder), CLIPS), training=True)
        batches = torch.arange(CLIPS).view(-1, BATCH_SIZE).tolist()
        os.pread = delayed_pread
        loaders = {
            threads: torch.utils.data.DataLoader(
                FairseqMedia(media, read_threads=threads),
                batch_sampler=batches,
                num_workers=args.workers,
                collate_fn=media.collater,
                persistent_workers=True,
            )
            for threads in rates
        }
        for number in range(args.rounds + 1):  # round 0 starts the workers
            for threads, loader in loaders.items():
                start = time.perf_counter()
                clips = sum(len(batch["id"]) for batch in loader)
                if number:
                    rates[threads].append(clips / (time.perf_counter() - start))
    for threads, values in rates.items():
        print(f"{threads:3} in parallel: {statistics.median(values):7.1f} clips/s")
    print(f"ratio {spread(rates[args.threads], rates[1])}; {args.latency_ms:g} ms per read, {args.workers} workers")


if __name__ == "__main__":
    main()
