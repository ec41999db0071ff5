"""How fast the data loader of a training run delivers clips, and how much CPU time a clip takes."""

from __future__ import annotations

import gc
import os
import resource
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairseq.data.iterators import EpochBatchIterator
from fairseq.tasks import setup_task
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import bridle_fairseq
from bridle_fairseq.data.collate import Batch
from bridle_fairseq.data.dataset import checked_batch
from bridle_fairseq.data.manifests.archive import split_slice
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.tasks.bridle_pretraining import BridlePretrainingConfig
from bridle_fairseq.tasks.datasets import FairseqMedia
from bridle_fairseq.utils.bounds import MOST_WORKERS
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.schema import Whole, check


@dataclass(frozen=True)
class LoaderOptions:
    """A data loader.

    Attributes:
        manifest: path of ``{split}.tsv``.
        modality: of its files.
        batch_size: clips of a batch.
        max_tokens: sound: samples of a padded batch; None: no limit.
        workers: processes that read.
        seconds: of measuring.
        overrides: settings of the task, such as ``task.max_sample_size=80000``.

    Raises:
        InputError: a number out of its bounds.
    """

    manifest: str
    modality: str = "audio"
    batch_size: int = 32
    max_tokens: int | None = None
    workers: int = 4
    seconds: float = 10.0
    overrides: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"--batch-size is {self.batch_size}; expected at least 1")
        check(Whole(0, MOST_WORKERS), "--workers", self.workers)
        if not self.seconds > 0:
            raise InputError(f"--seconds is {self.seconds}; expected more than 0")


class LoaderSpeed(NamedTuple):
    """What was measured."""

    clips: int
    file_bytes: int
    seconds: float  # wall time
    cpu_seconds: float  # of this process, its workers and their children


def measure_loader(options: LoaderOptions, manifest: Manifest, skips: SkipLog | None = None) -> LoaderSpeed:
    """Read batches for ``options.seconds``, after the workers have started.

    CPU time is measured over all clips that are read. It includes the start of the workers.

    Args:
        options: the data loader.
        manifest: its clips.
        skips: counts the clips that cannot be read.

    Raises:
        InputError: overrides that are not settings of reading.
    """
    begun = _cpu_seconds()
    rows, seconds, before = _read(options, manifest, skips)
    gc.collect()  # ends the workers, whose CPU time counts once they have ended
    cpu_seconds = (_cpu_seconds() - begun) * len(rows) / max(1, len(rows) + before)
    return LoaderSpeed(len(rows), sum(_stored_bytes(manifest.path(row)) for row in rows), seconds, cpu_seconds)


def _read(options: LoaderOptions, manifest: Manifest, skips: SkipLog | None) -> tuple[list[int], float, int]:
    """Rows that were read in the time, the time, and the number of clips read before it, while workers started."""
    bridle_fairseq.register()
    warnings.filterwarnings("ignore", message=".*pin_memory")  # fairseq pins memory even without a GPU
    cfg = _configuration(options)
    media = modality_of(cfg).dataset(manifest, cfg, training=True, skips=skips)
    dataset = FairseqMedia(media, read_threads=cfg.read_threads)
    limits = {"max_sentences": options.batch_size, "max_tokens": options.max_tokens, "num_workers": options.workers}
    batches = _epochs(setup_task(cfg).get_batch_iterator(dataset, seed=1, **limits))
    first = (checked_batch(next(batches)) for _ in range(1 + options.workers))
    before = sum(len(batch["id"]) for batch in first if batch)
    rows: list[int] = []
    begun = time.perf_counter()
    for batch in batches:
        rows += batch["id"].tolist() if checked_batch(batch) else []
        if time.perf_counter() - begun > options.seconds:
            break
    return rows, time.perf_counter() - begun, before


def _epochs(batch_iterator: EpochBatchIterator) -> Iterator[Batch]:
    """Batches of one epoch after another."""
    while True:
        yield from batch_iterator.next_epoch_itr(shuffle=True)


def _configuration(options: LoaderOptions) -> DictConfig:
    """The configuration of a pretraining task with the overrides."""
    cfg = OmegaConf.structured(BridlePretrainingConfig)
    cfg._name = "bridle_pretraining"
    cfg.data, cfg.modality, cfg.seed = os.path.dirname(os.path.abspath(options.manifest)), options.modality, 1
    for override in options.overrides:
        name, equals, value = override.partition("=")
        if not equals or not name.startswith("task.") or name[5:] in ("data", "modality", "codes"):
            raise InputError(f"{override!r} after --; expected settings of reading such as task.max_sample_size=80000")
        try:
            cfg = OmegaConf.merge(cfg, OmegaConf.from_dotlist([f"{name[5:]}={value}"]))
        except OmegaConfBaseException as error:
            raise InputError(f"{override!r} after --: {str(error).splitlines()[0]}") from None
    return cfg


def _stored_bytes(path: str) -> int:
    """Size of a file, or of a slice of an archive."""
    file, stored = split_slice(path)
    return stored[1] if stored else os.path.getsize(file)


def _cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
