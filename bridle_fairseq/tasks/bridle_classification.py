"""fairseq task ``bridle_classification``: labelled clips, and exact metrics of the validation set."""

import logging
import os
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.data.iterators import EpochBatchIterator
from fairseq.logging import metrics
from fairseq.tasks import register_task
from omegaconf import DictConfig
from torch import nn

from bridle_fairseq.criterions.totals import BatchLoss, Log
from bridle_fairseq.data.collate import Batch
from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.evaluation.classification import MULTI_LABEL, SINGLE_LABEL, Evaluation, evaluate, write_tables
from bridle_fairseq.models.bridle import run_config
from bridle_fairseq.tasks.base import MediaConfig
from bridle_fairseq.tasks.datasets import FairseqMedia, LabelledMedia, SampledMedia
from bridle_fairseq.tasks.finetuning import FineTuningTask, first_difference
from bridle_fairseq.tasks.validation import ScoreCollection
from bridle_fairseq.utils.distributed import rank
from bridle_fairseq.utils.errors import InputError, exit_on_input_error

logger = logging.getLogger(__name__)


@dataclass
class BridleClassificationConfig(MediaConfig):
    """Data with ``labels.csv`` and ``{split}.lbl`` in the same folder."""

    multi_label: bool = field(
        default=False,
        metadata={"help": "a clip has any number of classes, which are independent; otherwise exactly one"},
    )
    # Not named "sampling", which fairseq-validate takes for an option of text generation.
    weighted_sampling: bool = field(
        default=False,
        metadata={
            "help": "draw training clips so that all classes are equally frequent; else each clip once per epoch"
        },
    )
    samples_per_epoch: Optional[int] = field(
        default=None, metadata={"help": "weighted sampling: clips per epoch (default: number of clips)"}
    )
    results: Optional[str] = field(
        default=None,
        metadata={"help": "folder for {split}.classes.csv and {split}.confusion.csv (default: checkpoint.save_dir)"},
    )


@register_task("bridle_classification", dataclass=BridleClassificationConfig)
class BridleClassificationTask(FineTuningTask):
    """Loads manifests and labels. The classes are part of the task's state, which is saved in every checkpoint.

    Metrics are computed over the whole validation set, with each clip once, on any number of ranks. Scores stay on
    their rank until the last batch, which gathers them and logs the metrics. (fairseq averages what batches log. This
    is right for accuracy and wrong for average precision.) The number of batches is that of the iterator that fairseq
    requests at the start of each validation, both in training and in ``fairseq-validate``.
    """

    cfg: BridleClassificationConfig

    def __init__(self, cfg: BridleClassificationConfig, **kwargs: Any) -> None:
        super().__init__(cfg, **kwargs)
        self.state.add_factory("classes", self._classes_of_data)
        self._collected: ScoreCollection | None = None
        self._split = ""
        self._metrics: dict[str, float] | None = None
        self._training = False

    @classmethod
    def complete(cls, root: DictConfig) -> None:
        """See :meth:`MediaTask.complete`."""
        super().complete(root)
        if not {"checkpoint", "dataset", "criterion"} <= set(root):
            return  # the task is used without a run
        task, best = root.task, root.checkpoint.best_checkpoint_metric
        known = ("loss", *(MULTI_LABEL if getattr(task, "multi_label", False) else SINGLE_LABEL))
        if best not in known:
            raise InputError(f"checkpoint.best_checkpoint_metric is {best!r}; expected one of {', '.join(known)}")
        if root.checkpoint.maximize_best_checkpoint_metric == (best == "loss"):
            raise InputError(
                f"checkpoint.maximize_best_checkpoint_metric is {str(best == 'loss').lower()} with {best}; expected "
                f"{str(best != 'loss').lower()}"
            )
        if getattr(root.dataset, "max_valid_steps", None) is not None:
            raise InputError(
                f"dataset.max_valid_steps is {root.dataset.max_valid_steps}; expected null, as metrics are of the "
                "whole validation set"
            )
        if getattr(root.criterion, "mixup", 0) and getattr(root.dataset, "batch_size", None) == 1:
            raise InputError("criterion.mixup needs another clip to mix with; expected dataset.batch_size above 1")
        cls.check_schedule(root)
        if getattr(root.criterion, "cutmix", 0) and (task.modality == "audio" or not task.image_size):
            raise InputError("criterion.cutmix cuts images of one size; expected task.image_size above 0, and no sound")
        weighted, size = getattr(task, "weighted_sampling", False), getattr(task, "samples_per_epoch", None)
        if size is not None and (size < 1 or not weighted):
            raise InputError(
                f"task.samples_per_epoch is {size} with task.weighted_sampling {str(weighted).lower()}; expected null, "
                "or 1 or more with true"
            )

    def check_state(self, state: dict[str, Any], source: str) -> None:
        """See :meth:`FineTuningTask.check_state`: the classes must be those of the checkpoint."""
        expected = (state.get("classes") or {}).get("ids")
        different = None if expected is None else first_difference(self.classes.ids, expected)
        if different:
            row, here, there = different
            path = os.path.join(self.data_folder(self.cfg), "labels.csv")
            raise InputError(f"{path}, class {row}: {here!r}; expected {there!r}, {source}")

    @property
    def classes(self) -> Classes:
        """Classes of the checkpoint, or of the data in a new run."""
        state = self.state.classes
        return Classes(state["ids"], state["names"])

    def _classes_of_data(self) -> dict[str, list[str]]:
        classes = self._read_classes(self.cfg)
        return {"ids": classes.ids, "names": classes.names}

    def _read_classes(self, cfg: BridleClassificationConfig) -> Classes:
        return Classes.read(os.path.join(self.data_folder(cfg), "labels.csv"))

    def load_dataset(
        self, split: str, combine: bool = False, task_cfg: BridleClassificationConfig | None = None, **kwargs: Any
    ) -> None:
        """Load ``{data}/{split}.tsv`` with its labels ``{split}.lbl`` and the classes in ``labels.csv``."""
        cfg = task_cfg or self.cfg
        with exit_on_input_error():
            manifest = self.manifest(split, cfg)
            options: dict[str, Any] = {"labels": self._labels(split, cfg, manifest), "multi_label": cfg.multi_label}
            kind: type[LabelledMedia] = LabelledMedia
            if split.startswith("train") and getattr(cfg, "weighted_sampling", False):
                kind, options["samples_per_epoch"] = SampledMedia, cfg.samples_per_epoch or len(manifest)
            self.datasets[split] = self.media_dataset(split, cfg, manifest, kind, **options)

    def _labels(self, split: str, cfg: BridleClassificationConfig, manifest: Manifest) -> Labels:
        classes = self._read_classes(cfg)
        if classes.ids != self.classes.ids:
            raise InputError(
                f"{classes.source}: {len(classes)} classes that are not the {len(self.classes)} of the checkpoint; "
                "expected the same in the same order"
            )
        return Labels.read(os.path.join(self.data_folder(cfg), f"{split}.lbl"), manifest, classes, cfg.multi_label)

    def begin_valid_epoch(self, epoch: int, model: nn.Module) -> None:
        """Called in a training run only, which writes tables; ``fairseq-validate`` does not."""
        self._training = True

    def get_batch_iterator(self, dataset: FairseqMedia, *args: Any, **kwargs: Any) -> EpochBatchIterator:
        """Batches of a data set; starts collecting scores for a validation set."""
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        if not dataset.training:
            self._collected = ScoreCollection(len(iterator))
            self._split = next(split for split, known in self.datasets.items() if known is dataset)
        return iterator

    def valid_step(self, sample: Batch, model: nn.Module, criterion: FairseqCriterion) -> BatchLoss:
        """Loss and logging of a batch, {} for an empty one; the last batch computes the metrics."""
        result: BatchLoss = (0.0, 0, {})
        rows, scores = None, None
        if sample:
            result = super().valid_step(sample, model, criterion)
            rows, scores = sample["id"], result[2].pop("scores")
        if self._collected is not None:
            self._collected.add(rows, scores)
            if self._collected.left == 0:
                with exit_on_input_error():
                    self._finish_validation(self._collected, next(model.parameters()).device)
        return result

    def _finish_validation(self, collected: ScoreCollection, device: torch.device) -> None:
        """Metrics of the split from the scores of all ranks. Collective."""
        classes, dataset = self.classes, self.datasets[self._split]
        rows, scores = collected.gather(len(classes), device)
        self._collected = None
        if len(rows) == 0:
            raise InputError(f"{dataset.manifest.name}: no clip could be read; expected one at least")
        result = evaluate(scores, dataset.targets(rows.tolist()).numpy())
        self._metrics = result.values
        logger.info(
            f"{self._split}: {result.clips} clips; {result.absent} of {len(classes)} classes have none of them and are "
            "left out of mAP, mAUC and d_prime"
        )
        if self._training:
            self._check_best(result)
            if rank() == 0:
                root = run_config(self.cfg)
                write_tables(self.cfg.results or root.checkpoint.save_dir, self._split, result, classes)

    def _check_best(self, result: Evaluation) -> None:
        best = run_config(self.cfg).checkpoint.best_checkpoint_metric
        if best != "loss" and best not in result.values:
            raise InputError(
                f"{self.datasets[self._split].manifest.name}: {best} is not defined, as no class has both clips and "
                "other clips; expected labels of two classes at least, or another checkpoint.best_checkpoint_metric"
            )

    def reduce_metrics(self, logging_outputs: list[Log], criterion: FairseqCriterion) -> None:
        """Log the values of the criterion, and with the last validation batch the metrics."""
        super().reduce_metrics(logging_outputs, criterion)
        if self._metrics is not None:
            for name, value in self._metrics.items():
                metrics.log_scalar(name, value, weight=1, round=5)
            self._metrics = None
