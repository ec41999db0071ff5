"""Probes of the encoder's last layer on labelled clips, measured during pretraining.

``knn_accuracy`` is that of the nearest neighbours with mean-pooled features. ``ridge_accuracy`` is that of a ridge
regression on mean and standard deviation of the patches (sound: over time, frequency rows kept apart), regularized by
leaving one out on the train clips, so that the valid clips are only scored.
"""

import os
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.evaluation.ridge import leave_one_out_fit
from bridle_fairseq.inference.extractors import encoder_features
from bridle_fairseq.inference.pipeline import read_batches
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.knn import knn_accuracy
from bridle_fairseq.nn.pooling import pooled_width
from bridle_fairseq.utils.distributed import all_reduce_sum, broadcast, gather_rows, rank, world_size
from bridle_fairseq.utils.errors import InputError

BATCH_SIZE = 32
METRICS = ("knn_accuracy", "ridge_accuracy")
# The time of a ridge regression grows with the cube of the rows, or of the features if there are fewer: with 2048, some
# seconds. Wider features are fitted to this many train clips at most.
RIDGE_ROWS = 2048


@dataclass
class KnnConfig:
    """Options of the task."""

    knn_data: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder with labels.csv, train.tsv, train.lbl, valid.tsv and valid.lbl for knn_accuracy and "
            "ridge_accuracy"
        },
    )
    knn_every: int = field(
        default=0, metadata={"help": "measure them at the first validation after every n updates; 0: never"}
    )
    knn_k: int = field(default=10, metadata={"help": "number of neighbours that vote"})


class KnnCallback:
    """Classifies the clips of valid by their nearest neighbours in train, and by a ridge regression fitted to train.

    It draws no random number and does not change the state of the model, so training is the same without it.

    Args:
        cfg: configuration of a task with the fields of :class:`KnnConfig`.

    Attributes:
        measured_at: number of updates at the last measurement or the start of the run; None before either.

    Raises:
        InputError: options that contradict each other, missing files, clips with several classes, or a single class.
    """

    def __init__(self, cfg: KnnConfig) -> None:
        if cfg.knn_k < 1:
            raise InputError(f"task.knn_k is {cfg.knn_k}; expected at least 1")
        self.every, self.k, self.folder = cfg.knn_every, cfg.knn_k, cfg.knn_data
        self.bank, self.queries = (_LabelledSplit(cfg, split) for split in ("train", "valid"))
        self._num_updates = 0
        self.measured_at: int | None = None

    def updated(self, num_updates: int) -> None:
        """Called after every update with the number of finished updates."""
        if self._num_updates == 0:
            begun = num_updates - 1  # less than measured_at if the run resets the checkpoint's number of updates
            self.measured_at = begun if self.measured_at is None else min(self.measured_at, begun)
        self._num_updates = num_updates

    @property
    def due(self) -> bool:
        """Whether a multiple of ``knn_every`` has been passed since the last measurement or the start of the run.

        Always true for 1, because under fp16 fairseq validates an update again if the next one overflows.
        """
        return self.every == 1 or self._num_updates // self.every > (self.measured_at or 0) // self.every

    def measure(self, model: Bridle) -> dict[str, float]:
        """The value of each of :data:`METRICS`, the same on all ranks. A collective: each rank encodes some clips.

        Raises:
            InputError: no clip of a split is readable.
        """
        self.measured_at = self._num_updates
        was_training = model.encoder.training
        model.encoder.eval()
        bank, queries = self.bank.features(model), self.queries.features(model)
        model.encoder.train(was_training)
        means, labels = gather_rows(bank.means), gather_rows(bank.classes)
        query_means, query_labels = gather_rows(queries.means), gather_rows(queries.classes)
        if len(means) == 0 or len(query_means) == 0:
            raise InputError(f"{self.folder}: not one clip of train.tsv or of valid.tsv can be read; expected some")
        return {
            "knn_accuracy": knn_accuracy(means, labels, query_means, query_labels, self.k),
            "ridge_accuracy": _ridge_accuracy(bank, len(self.bank.clips), queries),
        }


def knn_callback(cfg: KnnConfig) -> KnnCallback | None:
    """The callback of a task's configuration, or None.

    Raises:
        InputError: only one of ``knn_data`` and ``knn_every`` is set; see also :class:`KnnCallback`.
    """
    if cfg.knn_every < 0:
        raise InputError(f"task.knn_every is {cfg.knn_every}; expected a number of updates, or 0")
    if cfg.knn_every and not cfg.knn_data:
        raise InputError("task.knn_every is set and task.knn_data is not; expected a folder of labelled clips")
    if cfg.knn_data and not cfg.knn_every:
        raise InputError(
            "task.knn_data is set and task.knn_every is 0; expected the updates between two measurements, such as 200"
        )
    return KnnCallback(cfg) if cfg.knn_every else None


class _LabelledSplit:
    """The clips of ``{knn_data}/{split}.tsv`` with their classes, cropped as in validation."""

    def __init__(self, cfg: KnnConfig, split: str) -> None:
        folder = str(cfg.knn_data)
        manifest = Manifest.read(os.path.join(folder, f"{split}.tsv"))
        path = os.path.join(folder, f"{split}.lbl")
        self.labels = Labels.read(path, manifest, Classes.read(os.path.join(folder, "labels.csv")))
        if not self.labels.single:
            row = next(row for row in range(len(self.labels)) if len(self.labels[row]) != 1)
            raise InputError(f"{path}, line {row + 1}: {len(self.labels[row])} classes; expected exactly 1")
        if split == "train" and np.count_nonzero(self.labels.counts()) < 2:
            raise InputError(f"{path}: a single class; expected at least 2")
        self.clips = modality_of(cfg).dataset(manifest, cfg)

    def features(self, model: Bridle) -> "_Features":
        """Features of the readable clips of this rank, on the model's device."""
        device, width, last = next(model.parameters()).device, model.settings.encoder_width, model.encoder.depth
        statistics = "statistics" if model.front_end.rows is None else "frequency_statistics"
        poolings = ["mean", statistics]
        found = [[torch.zeros(0, pooled_width(model.front_end, width, name), device=device)] for name in poolings]
        rows: list[int] = []
        for batch in read_batches(self.clips, BATCH_SIZE, np.arange(rank(), len(self.clips), world_size())):
            inputs = batch["net_input"]
            mask = None if inputs["padding_mask"] is None else inputs["padding_mask"].to(device)
            layers = encoder_features(model, inputs["source"].to(device), mask, poolings, [last])
            for pooling, batches in zip(poolings, found, strict=True):
                batches.append(layers[pooling, last].clone())
            rows += batch["id"].tolist()
        means, pooled = map(torch.cat, found)
        classes = torch.tensor([self.labels[row][0] for row in rows], dtype=torch.long, device=device)
        return _Features(np.array(rows, dtype=np.int64), means, pooled, classes)


class _Features(NamedTuple):
    """Features and classes of n clips."""

    rows: np.ndarray  # n, of the manifest
    means: Tensor  # n x D
    statistics: Tensor  # n x d
    classes: Tensor  # n

    def of(self, chosen: np.ndarray) -> "_Features":
        """Those of some clips, a mask of n."""
        mask = torch.from_numpy(chosen).to(self.classes.device)
        return _Features(self.rows[chosen], self.means[mask], self.statistics[mask], self.classes[mask])


def _ridge_accuracy(bank: _Features, num_bank: int, queries: _Features) -> float:
    """Fitted on rank 0; each rank scores its own queries. A collective.

    Args:
        bank: features of this rank's train clips.
        num_bank: clips of train on all ranks.
        queries: features of this rank's valid clips.
    """
    width = bank.statistics.shape[1]
    if width > RIDGE_ROWS:
        # its own generator: training draws the same numbers without the callback
        sample = np.random.default_rng(0).permutation(num_bank)[:RIDGE_ROWS]
        bank = bank.of(np.isin(bank.rows, sample))
    features, labels = gather_rows(bank.statistics), gather_rows(bank.classes)
    device = features.device if world_size() > 1 else torch.device("cpu")  # float64 is not for every device
    linear = torch.zeros(width + 1, int(labels.max()) + 1, dtype=torch.float64, device=device)
    # features of a diverged encoder are not finite; all scores are then 0
    if rank() == 0 and bool(features.isfinite().all()):
        fitted = leave_one_out_fit(features.cpu().numpy(), labels.cpu().numpy())
        linear.copy_(torch.from_numpy(np.concatenate([fitted.weight, fitted.offset[None]])))
    broadcast(linear)
    scores = queries.statistics.to(device).double() @ linear[:-1] + linear[-1]  # this rank's queries x classes
    right = scores.argmax(1) == queries.classes.to(device)
    right_and_all = all_reduce_sum(torch.stack([right.sum(), right.new_tensor(len(right), dtype=torch.long)]))
    return float(right_and_all[0] / right_and_all[1])
