"""fairseq task ``bridle_pretraining``: manifests to batches, and the stages of a run."""

import logging
import os
from dataclasses import dataclass, field
from typing import Optional

from fairseq.logging import metrics
from fairseq.tasks import register_task

from bridle_fairseq.criterions.bridle import comparable
from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.models.bridle import settings_from, unwrapped
from bridle_fairseq.models.checkpoints import restored_state
from bridle_fairseq.nn.frontend import front_end_of
from bridle_fairseq.nn.settings import check_settings
from bridle_fairseq.nn.transformer import compile_blocks
from bridle_fairseq.tasks import stages
from bridle_fairseq.tasks.base import MediaConfig, MediaTask
from bridle_fairseq.tasks.knn import KnnConfig, knn_callback
from bridle_fairseq.utils.errors import InputError, exit_on_input_error

logger = logging.getLogger(__name__)


@dataclass
class BridlePretrainingConfig(KnnConfig, MediaConfig):
    """The data, and where targets come from."""

    min_sample_size: int = field(
        default=1,
        metadata={"help": "audio: shortest clip, and with segment_crops or codes shortest last crop, in samples"},
    )
    segment_crops: bool = field(
        default=False,
        metadata={"help": "audio: crop at multiples of max_sample_size only, as training from cached codes does"},
    )
    codes: Optional[str] = field(
        default=None,
        metadata={"help": "folder with {split}.codes.* of `bridle tokenize`: targets, instead of running T"},
    )


@register_task("bridle_pretraining", dataclass=BridlePretrainingConfig)
class BridlePretrainingTask(MediaTask):
    """Loads manifests, begins stages, and keeps what is frozen frozen."""

    cfg: BridlePretrainingConfig

    @classmethod
    def complete(cls, root) -> None:
        """Fill in what follows from other settings of a run, and refuse what cannot work."""
        super().complete(root)
        if "stages" not in root.model:
            return
        settings = settings_from(root.model)
        check_settings(settings)
        if "optimization" in root and not root.optimization.max_update:
            root.optimization.max_update = settings.schedule().total_updates

    def __init__(self, cfg, **kwargs):
        super().__init__(cfg, **kwargs)
        self.knn, self._knn_accuracy = None, None

    def state_dict(self):
        """What checkpoints keep of the task: a run that goes on measures when it would have."""
        more = {} if self.knn is None else {"knn_measured_at": self.knn.measured_at}
        return {**super().state_dict(), **more}

    def _check_best(self) -> None:
        """Refuse a ``best_checkpoint_metric`` that a validation of this run may not have."""
        checkpoint, settings = self._run().get("checkpoint"), self._model_settings()
        if checkpoint is None or settings is None:
            return  # a model of somebody's own making: there is no run to check
        best = checkpoint.best_checkpoint_metric
        known = {**comparable(settings.schedule().stages, settings.num_codebooks), "knn_accuracy": True}
        if best not in known:
            raise InputError(
                f"checkpoint.best_checkpoint_metric is {best!r}; expected what is logged in all stages of the run, "
                f"one of {', '.join(known)}"
            )
        if best == "knn_accuracy" and self.cfg.knn_every != 1:
            raise InputError(
                f"checkpoint.best_checkpoint_metric is {best} with task.knn_every {self.cfg.knn_every}; "
                "expected 1, so that every validation measures it"
            )
        if checkpoint.maximize_best_checkpoint_metric != known[best]:
            found = f"checkpoint.maximize_best_checkpoint_metric is {str(not known[best]).lower()}"
            raise InputError(f"{found} with {best}; expected {str(known[best]).lower()}")

    def _run(self):
        """The whole configuration of the run; {} where the task is used without one."""
        return self.cfg._get_root() if hasattr(self.cfg, "_get_root") else {}

    def build_model(self, cfg, from_checkpoint=False):
        """Build the model; before training, see that the clips for ``knn_accuracy`` are there."""
        if not from_checkpoint:
            with exit_on_input_error():
                self._check_best()
                self.knn = knn_callback(self.cfg)
            if self.knn is not None:
                self.knn.measured_at = restored_state(self.cfg)[0].get("knn_measured_at")
        model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint and model.settings.compile:
            compile_blocks(model)
        return model

    # -- data --------------------------------------------------------------------------------------------------------

    def load_dataset(self, split, combine=False, task_cfg=None, **kwargs):
        """Read ``{data}/{split}.tsv``."""
        cfg = task_cfg or self.cfg
        with exit_on_input_error():
            manifest = self.manifest(split, cfg)
            codes = self._cached_codes(split, cfg, manifest) if cfg.codes else None
            self.datasets[split] = self.media_dataset(split, cfg, manifest, codes=codes)
            left_out = len(manifest) - int(self.datasets[split].media.usable.sum())
            if left_out:
                logger.warning(
                    f"{manifest.name}: {left_out} of {len(manifest)} clips have less than task.min_sample_size "
                    f"{cfg.min_sample_size} samples and are left out"
                )
            if self.datasets[split].training:
                self._check_enough_patches(self.datasets[split].media)

    def _model_settings(self):
        """Settings of the run's model ``bridle``; None where the task is used without one."""
        model = self._run().get("model")
        return None if model is None or "codebook_size" not in model else settings_from(model)

    def _cached_codes(self, split, cfg, manifest) -> CachedCodes:
        codes = CachedCodes(os.path.join(cfg.codes, f"{split}.codes"), manifest)
        model = self._model_settings()
        if model is not None:
            codes.check(
                num_codebooks=model.num_codebooks,
                codebook_size=model.codebook_size,
                **front_end_of(model).layout,
            )
        return codes

    def _check_enough_patches(self, media) -> None:
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

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """Forward and backward pass of one micro-batch."""
        stages.before_forward(model, optimizer, update_num, dummy_batch=ignore_grad)
        module = unwrapped(model)
        if module.stage.kind == "joint" and self.cfg.codes:
            with exit_on_input_error():
                raise InputError("task.codes in a joint stage, whose codes change; expected a stage of the encoder")
        with module.within_update():
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def optimizer_step(self, optimizer, model, update_num):
        """Update the parameters that learn in this stage, and the codebooks. A collective."""
        with stages.around_step(model, optimizer):
            super().optimizer_step(optimizer, model, update_num)
        if self.knn is not None:
            self.knn.updated(update_num + 1)

    def valid_step(self, sample, model, criterion):
        """Loss of a batch in the present stage."""
        unwrapped(model).dummy_batch = False
        return super().valid_step(sample, model, criterion)

    def begin_valid_epoch(self, epoch, model):
        """Measure ``knn_accuracy`` before a validation, where it is due; every rank comes here."""
        self._knn_accuracy = None
        if self.knn is not None and self.knn.due:
            with exit_on_input_error():
                self._knn_accuracy = self.knn.measure(unwrapped(model))

    def reduce_metrics(self, logging_outputs, criterion):
        """What the criterion logs, and in validation ``knn_accuracy``, of which fairseq looks for the best one."""
        super().reduce_metrics(logging_outputs, criterion)
        if self._knn_accuracy is not None and not criterion.training:
            metrics.log_scalar("knn_accuracy", self._knn_accuracy, weight=1, round=4)
