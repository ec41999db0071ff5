"""fairseq task ``bridle_pretraining``: data and stages of a pretraining run."""

import logging
import os
from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.criterions import FairseqCriterion
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel
from fairseq.optim import FairseqOptimizer
from fairseq.tasks import register_task
from omegaconf import DictConfig
from torch import nn

from bridle_fairseq.criterions.bridle import comparable
from bridle_fairseq.criterions.totals import BatchLoss, Log
from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.collate import Batch
from bridle_fairseq.data.dataset import MediaDataset
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.models.bridle import run_config, settings_from, unwrapped
from bridle_fairseq.models.checkpoints import Restored, restored
from bridle_fairseq.nn.frontend import front_end_of
from bridle_fairseq.nn.settings import BridleSettings, check_settings, checked_settings
from bridle_fairseq.nn.transformer import compile_blocks
from bridle_fairseq.tasks import stages
from bridle_fairseq.tasks.base import MediaConfig, MediaTask
from bridle_fairseq.tasks.knn import METRICS, KnnCallback, KnnConfig, knn_callback
from bridle_fairseq.utils.errors import InputError, exit_on_input_error

logger = logging.getLogger(__name__)

# Settings that a run keeps: the sizes of the weights, and what the codes of a cold start are made of.
KEPT = [
    *("modality", "num_mel_bins", "patch_size", "encoder_width", "encoder_depth", "encoder_heads"),
    *("decoder_kind", "decoder_width", "decoder_depth", "decoder_heads", "tokenizer_depth", "estimator_depth"),
    *("num_codebooks", "num_books", "codebook_size", "codebook_dim", "position_scale", "target_norm"),
]


@dataclass
class BridlePretrainingConfig(KnnConfig, MediaConfig):
    """Data, and the source of targets."""

    min_sample_size: int = field(
        default=1,
        metadata={
            "help": "audio: shortest clip in samples; with segment_crops or codes, also the shortest last segment"
        },
    )
    segment_crops: bool = field(
        default=False,
        metadata={"help": "audio: crop only at multiples of max_sample_size, as with cached codes"},
    )
    codes: Optional[str] = field(
        default=None,
        metadata={"help": "folder with {split}.codes.* of `bridle tokenize`, used as targets"},
    )


@register_task("bridle_pretraining", dataclass=BridlePretrainingConfig)
class BridlePretrainingTask(MediaTask):
    """Loads manifests and cached codes, and applies the stages (:mod:`bridle_fairseq.tasks.stages`)."""

    cfg: BridlePretrainingConfig

    @classmethod
    def complete(cls, root: DictConfig) -> None:
        """See :meth:`MediaTask.complete`; ``optimization.max_update`` is the length of all stages by default."""
        super().complete(root)
        if "stages" not in root.model:
            return
        settings = settings_from(root.model)
        check_settings(settings)
        if "optimization" in root and not root.optimization.max_update:
            root.optimization.max_update = settings.schedule().total_updates

    def __init__(self, cfg: BridlePretrainingConfig, **kwargs: Any) -> None:
        super().__init__(cfg, **kwargs)
        self.knn: KnnCallback | None = None
        self._probed: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """State of the task in checkpoints: a resumed run measures ``knn_accuracy`` at the same updates."""
        more = {} if self.knn is None else {"knn_measured_at": self.knn.measured_at}
        return {**super().state_dict(), **more}

    def _check_best(self) -> None:
        """Refuse a ``best_checkpoint_metric`` that some validation of this run does not log."""
        checkpoint, settings = run_config(self.cfg).get("checkpoint"), self._model_settings()
        if checkpoint is None or settings is None:
            return  # the task is used without a run
        best = checkpoint.best_checkpoint_metric
        # metric -> whether larger is better
        maximize = {**comparable(settings.schedule().stages, settings.num_codebooks), **dict.fromkeys(METRICS, True)}
        if best not in maximize:
            raise InputError(
                f"checkpoint.best_checkpoint_metric is {best!r}; expected what is logged in all stages of the run, "
                f"one of {', '.join(maximize)}"
            )
        if best in METRICS and self.cfg.knn_every != 1:
            raise InputError(
                f"checkpoint.best_checkpoint_metric is {best} with task.knn_every {self.cfg.knn_every}; "
                "expected 1, so that every validation measures it"
            )
        if checkpoint.maximize_best_checkpoint_metric != maximize[best]:
            raise InputError(
                f"checkpoint.maximize_best_checkpoint_metric is {str(not maximize[best]).lower()} with {best}; "
                f"expected {str(maximize[best]).lower()}"
            )

    def _check_resumed(self, checkpoint: Restored) -> None:
        """Refuse settings with which the run of a checkpoint cannot go on."""
        settings = self._model_settings()
        if checkpoint.path is None or checkpoint.model_cfg is None or settings is None:
            return
        begun = checked_settings(checkpoint.model_cfg, checkpoint.path, ignore_unknown=True)
        for name in KEPT:
            before, now = getattr(begun, name), getattr(settings, name)
            if before != now:
                raise InputError(
                    f"{checkpoint.path}: model.{name} is {before!r} in this run and {now!r} in the configuration; "
                    "expected the same, or another checkpoint.save_dir for a new run"
                )

    def build_model(self, cfg: DictConfig, from_checkpoint: bool = False) -> BaseFairseqModel:
        """Build the model; for a new run, also load the clips for ``knn_accuracy``."""
        if not from_checkpoint:
            with exit_on_input_error():
                self._check_best()
                checkpoint = restored(self.cfg)
                self._check_resumed(checkpoint)
                self.knn = knn_callback(self.cfg)
                if self.knn is not None:
                    self.knn.measured_at = checkpoint.task_state.get("knn_measured_at")
        model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint and model.settings.compile:
            compile_blocks(model)
        return model

    # -- data --------------------------------------------------------------------------------------------------------

    def load_dataset(
        self, split: str, combine: bool = False, task_cfg: BridlePretrainingConfig | None = None, **kwargs: Any
    ) -> None:
        """Load ``{data}/{split}.tsv``."""
        cfg = task_cfg or self.cfg
        with exit_on_input_error():
            manifest = self.manifest(split, cfg)
            codes = self._cached_codes(cfg.codes, split, manifest) if cfg.codes else None
            self.datasets[split] = self.media_dataset(split, cfg, manifest, codes=codes)
            num_too_short = len(manifest) - int(self.datasets[split].media.long_enough.sum())
            if num_too_short:
                logger.warning(
                    f"{manifest.name}: {num_too_short} of {len(manifest)} clips have less than task.min_sample_size "
                    f"{cfg.min_sample_size} samples and are left out"
                )
            if self.datasets[split].training:
                self._check_enough_patches(self.datasets[split].media)

    def _model_settings(self) -> BridleSettings | None:
        """Settings of the run's model ``bridle``; None if the task is used without one."""
        model = run_config(self.cfg).get("model")
        return None if model is None or "codebook_size" not in model else settings_from(model)

    def _cached_codes(self, folder: str, split: str, manifest: Manifest) -> CachedCodes:
        codes = CachedCodes(os.path.join(folder, f"{split}.codes"), manifest)
        model = self._model_settings()
        if model is not None:
            codes.check(
                num_codebooks=model.num_codebooks,
                codebook_size=model.codebook_size,
                **front_end_of(model).layout,
            )
        return codes

    def _check_enough_patches(self, media: MediaDataset) -> None:
        model = self._model_settings()
        if model is None:
            return
        patches = media.approximate_patches(model)
        if patches < model.codebook_size:
            raise InputError(
                f"{media.manifest.name} holds about {int(patches)} patches, fewer than model.codebook_size "
                f"{model.codebook_size}; expected more data or a smaller codebook"
            )

    # -- training ----------------------------------------------------------------------------------------------------

    def train_step(
        self,
        sample: Batch,
        model: nn.Module,
        criterion: FairseqCriterion,
        optimizer: FairseqOptimizer,
        update_num: int,
        ignore_grad: bool = False,
    ) -> BatchLoss:
        """Forward and backward pass of one micro-batch."""
        stages.before_forward(model, optimizer, update_num, dummy_batch=ignore_grad)
        module = unwrapped(model)
        if module.stage.kind == "joint" and self.cfg.codes:  # only known here: encoder stages before may use codes
            with exit_on_input_error():
                raise InputError("task.codes in a joint stage, whose codes change; expected a stage of the encoder")
        with module.within_update():
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def optimizer_step(self, optimizer: FairseqOptimizer, model: nn.Module, update_num: int) -> None:
        """Update the parameters that learn in this stage, and the codebooks. A collective."""
        with stages.around_step(model, optimizer):
            super().optimizer_step(optimizer, model, update_num)
        if self.knn is not None:
            self.knn.updated(update_num + 1)

    def valid_step(self, sample: Batch, model: nn.Module, criterion: FairseqCriterion) -> BatchLoss:
        """Loss of a batch in the present stage."""
        unwrapped(model).dummy_batch = False
        return super().valid_step(sample, model, criterion)

    def begin_valid_epoch(self, epoch: int, model: nn.Module) -> None:
        """Measure ``knn_accuracy`` and ``ridge_accuracy`` before a validation if they are due. A collective."""
        self._probed = {}
        if self.knn is not None and self.knn.due:
            with exit_on_input_error():
                self._probed = self.knn.measure(unwrapped(model))

    def reduce_metrics(self, logging_outputs: list[Log], criterion: FairseqCriterion) -> None:
        """Log the values of the criterion, and in validation those of :class:`.knn.KnnCallback`."""
        super().reduce_metrics(logging_outputs, criterion)
        for name, value in () if criterion.training else self._probed.items():
            metrics.log_scalar(name, value, weight=1, round=4)
