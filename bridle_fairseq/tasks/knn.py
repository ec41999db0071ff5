"""k-nearest-neighbour accuracy of the encoder's features on labelled clips, measured during pretraining."""

import os
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.inference.extractors import encoder_features
from bridle_fairseq.inference.pipeline import read_batches
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.knn import knn_accuracy
from bridle_fairseq.utils.distributed import gather_rows, rank, world_size
from bridle_fairseq.utils.errors import InputError

BATCH_SIZE = 32


@dataclass
class KnnConfig:
    """Options of the task."""

    knn_data: Optional[str] = field(
        default=None,
        metadata={"help": "folder with labels.csv, train.tsv, train.lbl, valid.tsv and valid.lbl for knn_accuracy"},
    )
    knn_every: int = field(
        default=0, metadata={"help": "measure knn_accuracy at the first validation after every n updates; 0: never"}
    )
    knn_k: int = field(default=10, metadata={"help": "number of neighbours that vote"})


class KnnCallback:
    """Classifies the clips of valid by their nearest neighbours in train, with mean-pooled features of the last layer.

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

    def measure(self, model: Bridle) -> float:
        """The accuracy, the same on all ranks. A collective: each rank encodes a shard of the clips.

        Raises:
            InputError: no clip of a split is readable.
        """
        self.measured_at = self._num_updates
        was_training = model.encoder.training
        model.encoder.eval()
        (bank, bank_labels), (queries, labels) = self.bank.features(model), self.queries.features(model)
        model.encoder.train(was_training)
        if len(bank) == 0 or len(queries) == 0:
            raise InputError(f"{self.folder}: not one clip of train.tsv or of valid.tsv can be read; expected some")
        return knn_accuracy(bank, bank_labels, queries, labels, self.k)


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

    def features(self, model: Bridle) -> tuple[Tensor, Tensor]:
        """Features (n x D) and classes (n) of all readable clips, on the model's device. A collective."""
        device = next(model.parameters()).device
        rows = np.arange(rank(), len(self.clips), world_size())
        features, classes = [torch.zeros(0, model.settings.encoder_width, device=device)], []
        for batch in read_batches(self.clips, BATCH_SIZE, rows):
            inputs = batch["net_input"]
            mask = None if inputs["padding_mask"] is None else inputs["padding_mask"].to(device)
            layers = encoder_features(model, inputs["source"].to(device), mask, ["mean"], [model.encoder.depth])
            features.append(layers["mean", model.encoder.depth].clone())
            classes += [self.labels[row][0] for row in batch["id"].tolist()]
        return gather_rows(torch.cat(features)), gather_rows(torch.tensor(classes, dtype=torch.long, device=device))
