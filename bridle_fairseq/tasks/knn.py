"""While pretraining: how well the encoder's features tell labelled clips apart, by their nearest neighbours."""

import os
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import torch

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.inference.extractors import encoder_features
from bridle_fairseq.inference.pipeline import read_batches
from bridle_fairseq.nn.knn import knn_accuracy
from bridle_fairseq.utils.distributed import gather_rows, rank, world_size
from bridle_fairseq.utils.errors import InputError

BATCH_SIZE = 32


@dataclass
class KnnConfig:
    """Settings of the task."""

    knn_data: Optional[str] = field(
        default=None,
        metadata={"help": "folder with labels.csv, train and valid .tsv and .lbl: labelled clips for knn_accuracy"},
    )
    knn_every: int = field(
        default=0, metadata={"help": "knn_accuracy at the first validation after every so many updates, with knn_data"}
    )
    knn_k: int = field(default=10, metadata={"help": "neighbours that vote"})


class KnnCallback:
    """Accuracy of a vote of nearest neighbours: valid's clips among train's, mean of the last layer's patches.

    It draws no random number and changes no state of the model: training goes on as without it.

    Args:
        cfg: a task's configuration with the fields of :class:`KnnConfig`.

    Attributes:
        measured_at: updates of the last measurement, or of the run's beginning; None before either.

    Raises:
        InputError: settings that do not go together, files missing, clips of several classes, or a single class.
    """

    def __init__(self, cfg) -> None:
        if cfg.knn_k < 1:
            raise InputError(f"task.knn_k is {cfg.knn_k}; expected at least 1")
        self.every, self.k, self.folder = cfg.knn_every, cfg.knn_k, cfg.knn_data
        self.bank, self.queries = (_LabelledSplit(cfg, split) for split in ("train", "valid"))
        self._num_updates = 0
        self.measured_at: Optional[int] = None

    def updated(self, num_updates: int) -> None:
        """So many updates of the run are finished, the last one just now."""
        if self._num_updates == 0:
            begun = num_updates - 1  # less than the checkpoint's where its updates are not counted on
            self.measured_at = begun if self.measured_at is None else min(self.measured_at, begun)
        self._num_updates = num_updates

    @property
    def due(self) -> bool:
        """Whether a multiple of ``knn_every`` has been passed since the run began or the last measurement.

        With 1 it always is. Under fp16, fairseq validates an update again when the next one overflows.
        """
        return self.every == 1 or self._num_updates // self.every > (self.measured_at or 0) // self.every

    def measure(self, model) -> float:
        """The accuracy; collective, each rank does a share of the clips and all get the same value.

        Raises:
            InputError: nothing to compare.
        """
        self.measured_at = self._num_updates
        was_training = model.encoder.training
        model.encoder.eval()
        (bank, bank_labels), (queries, labels) = self.bank.features(model), self.queries.features(model)
        model.encoder.train(was_training)
        if len(bank) == 0 or len(queries) == 0:
            raise InputError(f"{self.folder}: not one clip of train.tsv or of valid.tsv can be read; expected some")
        return knn_accuracy(bank, bank_labels, queries, labels, self.k)


def knn_callback(cfg) -> Optional[KnnCallback]:
    """What a task's configuration asks for; None for nothing.

    Raises:
        InputError: a folder without updates, updates without a folder, and as :class:`KnnCallback`.
    """
    if cfg.knn_every < 0:
        raise InputError(f"task.knn_every is {cfg.knn_every}; expected a number of updates, or 0")
    if cfg.knn_every and not cfg.knn_data:
        raise InputError("task.knn_every is set and task.knn_data is not; expected a folder of labelled clips")
    if cfg.knn_data and not cfg.knn_every:
        raise InputError(
            "task.knn_data is set and task.knn_every is 0; expected so many updates between measurements, such as 200"
        )
    return KnnCallback(cfg) if cfg.knn_every else None


class _LabelledSplit:
    """The clips of ``{knn_data}/{split}.tsv`` with their classes; longer ones are cropped as in validation."""

    def __init__(self, cfg, split: str) -> None:
        manifest = Manifest.read(os.path.join(cfg.knn_data, f"{split}.tsv"))
        path = os.path.join(cfg.knn_data, f"{split}.lbl")
        self.labels = Labels.read(path, manifest, Classes.read(os.path.join(cfg.knn_data, "labels.csv")))
        if not self.labels.single:
            row = next(row for row in range(len(self.labels)) if len(self.labels[row]) != 1)
            raise InputError(f"{path}, line {row + 1}: {len(self.labels[row])} classes; expected exactly 1")
        if split == "train" and np.count_nonzero(self.labels.counts()) < 2:
            raise InputError(f"{path}: a single class; expected at least 2")
        self.clips = modality_of(cfg).dataset(manifest, cfg)

    def features(self, model):
        """Features and classes of all clips that can be read, n x D and n, on the model's device."""
        device = next(model.parameters()).device
        rows = np.arange(rank(), len(self.clips), world_size())
        found, classes = [torch.zeros(0, model.settings.encoder_width, device=device)], []
        for batch in read_batches(self.clips, BATCH_SIZE, rows):
            inputs = batch["net_input"]
            source, mask = (None if x is None else x.to(device) for x in (inputs["source"], inputs["padding_mask"]))
            layers = encoder_features(model, source, mask, ["mean"], [model.encoder.depth])
            found.append(layers["mean", model.encoder.depth].clone())
            classes += [self.labels[row][0] for row in batch["id"].tolist()]
        return gather_rows(torch.cat(found)), gather_rows(torch.tensor(classes, dtype=torch.long, device=device))
