"""One fine-tuning run: training from a pretrained checkpoint, and the score of its best checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bridle_fairseq.training.configs import EXAMPLES
from bridle_fairseq.training.launch import TrainingRun, override
from bridle_fairseq.utils.errors import InputError

FINETUNING_CONFIGS = EXAMPLES / "audio" / "config" / "finetuning"
MULTI_LABEL = ("task.multi_label=true", "checkpoint.best_checkpoint_metric=mAP")  # overrides: many classes per clip


@dataclass(frozen=True)
class FineTuningRun:
    """A run of ``bridle_classification`` in a folder. A run that was stopped resumes from its last checkpoint.

    Attributes:
        checkpoint: pretrained, of the model ``bridle``.
        data: folder with train, valid and test .tsv and .lbl, and labels.csv.
        folder: for checkpoints and log.
        config_dir, config_name: the configuration, as fairseq-hydra-train takes it.
        overrides: overrides of the configuration.
    """

    checkpoint: str
    data: Path
    folder: Path
    config_dir: Path
    config_name: str
    overrides: Sequence[str] = ()

    @property
    def training(self) -> TrainingRun:
        """How it is trained."""
        return TrainingRun(
            self.config_dir,
            self.config_name,
            save_dir=self.folder / "checkpoints",
            hydra_dir=self.folder / "hydra",
            overrides=[
                override("task.data", self.data),
                override("model.checkpoint", self.checkpoint),
                *self.overrides,
            ],
            name="fine-tuning",
        )

    def train(self) -> Path:
        """Train to the end; path of the checkpoint that is best on the validation split.

        Raises:
            InputError: training failed; gives its last error and the log.
        """
        self.training.run(self.folder / "train.log")
        best = self.training.save_dir / "checkpoint_best.pt"
        if not best.is_file():
            raise InputError(f"{best}: fine-tuning ended without it; expected a validation after training")
        return best


class SplitScore(NamedTuple):
    """How good a fine-tuned classifier is on a split."""

    score: float  # accuracy; multi-label: mAP
    best_valid: float  # the best validation score of the training
    rows: np.ndarray  # n rows of the manifest that could be read
    scores: np.ndarray  # n x classes


def score_split(checkpoint: Path, data: Path, split: str, batch_size: int, device: str) -> SplitScore:
    """Score a fine-tuned classifier on a split.

    Clips are cropped as in validation. mAP is the mean over the classes that have a positive in the split.

    Raises:
        InputError: the checkpoint or the split cannot be used.
    """
    from bridle_fairseq.evaluation.classification import evaluate
    from bridle_fairseq.inference.classify import score_dataset
    from bridle_fairseq.models.checkpoints import build_model, read_checkpoint

    saved = read_checkpoint(str(checkpoint), ("bridle_classifier",))
    model, task = build_model(saved, device, {"data": str(data)})
    task.load_dataset(split)
    dataset = task.dataset(split)
    rows, scores = score_dataset(model, dataset, dataset.multi_label, batch_size, workers=0)
    if not len(rows):
        raise InputError(f"{data / split}.tsv: not one clip can be read; expected some")
    metrics = evaluate(scores, dataset.targets(rows.tolist()).numpy()).values
    return SplitScore(metrics["mAP" if dataset.multi_label else "accuracy"], saved.best_score, rows, scores)
