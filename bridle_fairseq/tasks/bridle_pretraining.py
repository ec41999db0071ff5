"""fairseq task ``bridle_pretraining``: manifests to batches, and the stages of a run."""

import logging
import os
from dataclasses import dataclass, field
from typing import Optional

from fairseq.data import FairseqDataset
from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II, MISSING

from bridle_fairseq.data.audio import AudioDataset
from bridle_fairseq.data.augment import Augment
from bridle_fairseq.data.codes import CachedCodes
from bridle_fairseq.data.manifest import Manifest
from bridle_fairseq.data.skips import SkipLog
from bridle_fairseq.errors import InputError
from bridle_fairseq.models.bridle import settings_from
from bridle_fairseq.nn.settings import check_settings
from bridle_fairseq.optim.masters import drop_gradients, start_fresh
from bridle_fairseq.tasks.user_errors import exit_on_input_error

logger = logging.getLogger(__name__)


class FairseqAudioDataset(AudioDataset, FairseqDataset):
    """:class:`AudioDataset`, which knows nothing of fairseq, as a dataset that fairseq accepts."""


@dataclass
class BridlePretrainingConfig(FairseqDataclass):
    """Where the data are and how clips are drawn from them."""

    data: str = field(default=MISSING, metadata={"help": "folder with {split}.tsv manifests"})
    modality: str = field(default="audio", metadata={"help": "audio"})
    sample_rate: int = field(default=16000, metadata={"help": "samples a second; other files are resampled"})
    max_sample_size: int = field(
        default=163840,
        metadata={"help": "longest clip in samples: a random crop in training, the first ones in validation"},
    )
    roll: bool = field(default=True, metadata={"help": "augment: roll the clip by a random number of samples"})
    gain: bool = field(default=True, metadata={"help": "augment: multiply the clip by Beta(10, 10) + 0.5"})
    segment_crops: bool = field(
        default=False,
        metadata={"help": "crop at multiples of max_sample_size only, as training from cached codes does"},
    )
    codes: Optional[str] = field(
        default=None,
        metadata={"help": "folder with {split}.codes.* of `bridle tokenize`: targets, instead of running T"},
    )
    num_buckets: int = field(default=16, metadata={"help": "buckets of like length from which batches are drawn"})
    max_skipped: float = field(
        default=0.01, metadata={"help": "stop when more than this share of the clips is unreadable"}
    )
    seed: int = II("common.seed")


@register_task("bridle_pretraining", dataclass=BridlePretrainingConfig)
class BridlePretrainingTask(FairseqTask):
    """Loads manifests, begins stages, and keeps what is frozen frozen."""

    cfg: BridlePretrainingConfig

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """Check what can be checked before anything is built; a user's mistake ends here."""
        with exit_on_input_error():
            root = cfg._get_root() if hasattr(cfg, "_get_root") else None
            if root is not None and "model" in root and root.model is not None and "stages" in root.model:
                _complete(root)
        return cls(cfg, **kwargs)

    def __init__(self, cfg, **kwargs):
        super().__init__(cfg, **kwargs)
        self.skips = {}

    # -- data --------------------------------------------------------------------------------------------------------

    def load_dataset(self, split, combine=False, task_cfg=None, **kwargs):
        """Read ``{data}/{split}.tsv``."""
        cfg = task_cfg or self.cfg
        with exit_on_input_error():
            manifest = Manifest.read(os.path.join(cfg.data, f"{split}.tsv"))
            training = split.startswith("train")
            self.skips[split] = SkipLog(manifest, os.path.abspath("skipped.tsv"))
            augment = Augment(roll=cfg.roll, gain=cfg.gain) if training and (cfg.roll or cfg.gain) else None
            codes = CachedCodes(os.path.join(cfg.codes, f"{split}.codes"), manifest) if cfg.codes else None
            self.datasets[split] = FairseqAudioDataset(
                manifest,
                sample_rate=cfg.sample_rate,
                max_sample_size=cfg.max_sample_size,
                training=training,
                seed=cfg.seed,
                augment=augment,
                skips=self.skips[split],
                num_buckets=cfg.num_buckets,
                segment_crops=cfg.segment_crops,
                codes=codes,
            )
            if training:
                self._check_enough_patches(manifest)

    def _check_enough_patches(self, manifest) -> None:
        root = self.cfg._get_root() if hasattr(self.cfg, "_get_root") else None
        model = root.model if root is not None and "model" in root else None
        if model is None or "codebook_size" not in model:
            return
        samples = int(manifest.sizes.sum())
        patches = (
            samples / (model.patch_size[0] * 0.01 * self.cfg.sample_rate) * model.num_mel_bins / model.patch_size[1]
        )
        if patches < model.codebook_size:
            raise InputError(
                f"{manifest.name} holds about {int(patches)} patches of sound, fewer than model.codebook_size "
                f"{model.codebook_size}; expected more data or a smaller codebook"
            )

    @property
    def source_dictionary(self):
        """None: there are no words."""
        return None

    @property
    def target_dictionary(self):
        """None: there are no words."""
        return None

    def max_positions(self):
        """None: clips are cropped, never refused for their length."""
        return None

    # -- training ----------------------------------------------------------------------------------------------------

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """Forward and backward of one micro-batch; the first one of a stage begins it."""
        module = getattr(model, "module", model)
        with exit_on_input_error():
            self._check_skips()
        if module.begin_update(update_num):
            start_fresh(optimizer, module.newly_trained_parameters())
            stage = module.stage
            logger.info(f"stage {module.stage_index + 1} of {len(module.schedule.stages)} begins: {stage}")
        module.dummy_batch = ignore_grad
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def optimizer_step(self, optimizer, model, update_num):
        """Step what learns in this update, then take the batch statistics into the codebooks; every rank comes here."""
        module = getattr(model, "module", model)
        drop_gradients(optimizer, module.frozen_parameters())
        super().optimizer_step(optimizer, model, update_num)
        module.commit()
        if update_num + 1 == module.schedule.starts[module.stage_index] + module.stage.updates:
            self._report_stage(module)

    def valid_step(self, sample, model, criterion):
        """Loss of a batch in the present stage."""
        getattr(model, "module", model).dummy_batch = False
        return super().valid_step(sample, model, criterion)

    def _check_skips(self) -> None:
        for log in self.skips.values():
            log.check(self.cfg.max_skipped)

    def _report_stage(self, module) -> None:
        for level, use in enumerate(module.quantizer.statistics(), 1):
            text = f"stage {module.stage_index + 1} ends: level {level} uses {use.used_codes} codes"
            text += f", perplexity {use.perplexity:.1f}"
            logger.info(text)
            if use.perplexity < module.settings.codebook_size / 10:
                logger.warning(
                    f"{text}, under a tenth of its {module.settings.codebook_size} codes: this level has collapsed"
                )


def _complete(root) -> None:
    """Fill in what follows from other settings, and refuse what cannot work."""
    settings = settings_from(root.model)
    check_settings(settings)
    if "optimization" in root and not root.optimization.max_update:
        root.optimization.max_update = settings.schedule().total_updates
    if "common" in root and root.common.fp16:
        # A flattened copy of all parameters cannot keep some of them frozen.
        root.common.fp16_no_flatten_grads = True
