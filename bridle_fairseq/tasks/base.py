"""Base of the tasks: options of the data, data sets of a split, and the limit on skipped clips."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel
from fairseq.optim import FairseqOptimizer
from fairseq.tasks import FairseqTask
from omegaconf import II, MISSING, DictConfig, MissingMandatoryValue
from torch import Tensor, nn

from bridle_fairseq.criterions.totals import BatchLoss
from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.collate import Batch
from bridle_fairseq.data.dataset import MediaDataset, checked_batch
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog, list_size
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.models.bridle import run_config
from bridle_fairseq.models.exports import start_from_export
from bridle_fairseq.tasks.datasets import FairseqMedia
from bridle_fairseq.tasks.memory import log_memory
from bridle_fairseq.utils.distributed import decorrelate_rng
from bridle_fairseq.utils.errors import InputError, exit_on_input_error
from bridle_fairseq.utils.memory import keep_freed_memory

SKIPPED = "skipped.tsv"  # relative: hydra runs in the run's folder


@dataclass
class WaveformOptions(FairseqDataclass):
    """How audio is read."""

    sample_rate: int = field(default=16000, metadata={"help": "audio: sample rate in Hz; other files are resampled"})
    max_sample_size: int = field(
        default=163840,
        metadata={"help": "audio: longest clip in samples: a random crop in training, the beginning in validation"},
    )
    gain: bool = field(default=True, metadata={"help": "audio, augment: multiply the clip by Beta(10, 10) + 0.5"})


@dataclass
class AudioOptions(WaveformOptions):
    """How audio is read by tasks whose targets allow a circular shift of the clip."""

    roll: bool = field(default=True, metadata={"help": "audio, augment: roll the clip by a random number of samples"})


@dataclass
class ImageOptions(FairseqDataclass):
    """How images and frames of video are read."""

    image_size: int = field(
        default=224,
        metadata={"help": "image, video: height and width in pixels; 0: unchanged, padded in batches"},
    )
    valid_crop: float = field(
        default=0.875,
        metadata={"help": "image, video, validation: side of the centre crop, as a fraction of the shorter side"},
    )
    crop: bool = field(default=True, metadata={"help": "image, video, augment: random resized crop"})
    min_area: float = field(
        default=0.2, metadata={"help": "image, video, augment: smallest area of the random crop, as a fraction"}
    )
    flip: bool = field(default=True, metadata={"help": "image, video, augment: flip half of them horizontally"})
    repeats: int = field(
        default=1,
        metadata={"help": "image, video, augment: random views of each file per batch; it is decoded once"},
    )
    rand_augment: int = field(
        default=0, metadata={"help": "image, video, augment: number of RandAugment operations; 0: none"}
    )
    rand_magnitude: int = field(
        default=9, metadata={"help": "image, video, augment: magnitude of RandAugment, 0 to 30"}
    )
    erase: float = field(default=0.0, metadata={"help": "image, video, augment: probability of random erasing"})


@dataclass
class VideoOptions(FairseqDataclass):
    """Which frames of a video are read."""

    num_frames: int = field(default=16, metadata={"help": "video: frames per clip"})
    frame_stride: int = field(default=4, metadata={"help": "video: step from one frame of a clip to the next"})
    random_start: bool = field(
        default=True, metadata={"help": "video, augment: clip from a random start, not from the middle"}
    )


@dataclass
class DataOptions(FairseqDataclass):
    """Where the data are, and how batches are made."""

    data: str = field(default=MISSING, metadata={"help": "folder with {split}.tsv manifests"})
    read_threads: int = field(
        default=1,
        metadata={"help": "files that each data loader worker reads in parallel; more for storage with high latency"},
    )
    num_buckets: int = field(
        default=16,
        metadata={
            "help": "number of buckets of similar length, which are shuffled in each epoch and then batched "
            "(fewer: more varied batches, more padding)"
        },
    )
    max_skipped: float = field(
        default=0.01,
        metadata={"help": "abort if more than this fraction of the clips, and more than 10, is unreadable"},
    )
    seed: int = II("common.seed")


@dataclass
class MediaConfig(AudioOptions, ImageOptions, VideoOptions, DataOptions):
    """Data of any modality; the help of an option begins with its modalities unless it is for all."""

    modality: str = field(default="audio", metadata={"help": "type of the files: audio, image or video"})


SMALLEST = {"batch_size": 1, "batch_size_valid": 1, "max_tokens": 1, "max_tokens_valid": 1, "num_workers": 0}


class MediaTask(FairseqTask):
    """Reads manifests and limits skipped clips; exits with code 2 and one sentence for a user's mistake."""

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> "MediaTask":
        """Check the configuration of the run before anything is built."""
        with exit_on_input_error():
            root = run_config(cfg)
            if "model" in root and root.model is not None:
                cls.complete(root)
        return cls(cfg, **kwargs)

    @classmethod
    def complete(cls, root: DictConfig) -> None:
        """Fill in settings that follow from others, and check the run.

        Raises:
            InputError: settings that are not possible.
        """
        if getattr(root.model, "_name", None) == "bridle_tokenizer":
            raise InputError(
                "model bridle_tokenizer is taken from a checkpoint and not trained by itself; "
                "expected model bridle with a stage of kind tokenizer"
            )
        limits = root.dataset if "dataset" in root else {}
        for name, least in SMALLEST.items():
            value = limits.get(name)
            if value is not None and value < least:  # fairseq takes a batch of 0 for one without a limit
                raise InputError(f"dataset.{name} is {value}; expected at least {least}")
        if "common" in root and root.common.fp16:
            # In one flat copy, parameters could not be frozen or have different weight decay.
            root.common.fp16_no_flatten_grads = True

    def __init__(self, cfg: DataOptions, **kwargs: Any) -> None:
        super().__init__(cfg, **kwargs)
        self.media: dict[str, MediaDataset] = {}  # by split
        self._skipped_before = list_size(SKIPPED)  # before any rank has read files

    def build_model(self, cfg: DictConfig, from_checkpoint: bool = False) -> BaseFairseqModel:
        """Build the model. For a new run, first check that the data folder exists, which fairseq does not."""
        if not from_checkpoint:
            with exit_on_input_error():
                folder = self.data_folder(self.cfg)
                if not os.path.isdir(folder):
                    here = "" if os.path.isabs(folder) else f" in {os.getcwd()} (hydra changes the working directory)"
                    raise InputError(
                        f"task.data is {folder}, which is no folder{here}; expected one with {{split}}.tsv manifests"
                    )
            if not torch.cuda.is_available():
                keep_freed_memory()
        model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint:
            with exit_on_input_error():
                start_from_export(model, run_config(self.cfg))
        return model

    @staticmethod
    def data_folder(cfg: DataOptions) -> str:
        """``task.data``.

        Raises:
            InputError: it is not set.
        """
        try:
            folder = cfg.data
        except MissingMandatoryValue:
            folder = MISSING
        if folder in (MISSING, None):
            raise InputError("task.data is not set; expected the folder of {split}.tsv manifests")
        return folder

    def media_dataset(
        self,
        split: str,
        cfg: DataOptions,
        manifest: Manifest | None = None,
        kind: type[FairseqMedia] = FairseqMedia,
        codes: CachedCodes | None = None,
        media_options: dict[str, Any] | None = None,
        **dataset_options: Any,
    ) -> FairseqMedia:
        """Data set of ``{data}/{split}.tsv``; splits whose names begin with "train" are cropped and augmented.

        Args:
            split: name of the split.
            cfg: configuration of the task.
            manifest: manifest of the split, if it has been read already.
            kind: class of the data set.
            codes: cached codes of the split.
            media_options: further arguments of the modality's data set.
            dataset_options: further arguments of ``kind``.

        Raises:
            InputError: see :class:`Manifest` and the modality's data set.
        """
        if manifest is None:
            manifest = self.manifest(split, cfg)
        training = split.startswith("train")
        skips = SkipLog(manifest, os.path.abspath(SKIPPED), self._skipped_before)
        media = modality_of(cfg).dataset(manifest, cfg, training, skips=skips, codes=codes, **media_options or {})
        self.media[split] = media
        return kind(media, keep_precision=self._casts_batches(), read_threads=cfg.read_threads, **dataset_options)

    def _casts_batches(self) -> bool:
        """Whether fairseq casts batches to half precision."""
        root = run_config(self.cfg)
        return "common" in root and bool(root.common.get("fp16") or root.common.get("bf16"))

    def manifest(self, split: str, cfg: DataOptions) -> Manifest:
        """The manifest ``{data}/{split}.tsv``."""
        return Manifest.read(os.path.join(self.data_folder(cfg), f"{split}.tsv"))

    @property
    def source_dictionary(self) -> None:
        """None: inputs are not text."""
        return None

    @property
    def target_dictionary(self) -> None:
        """None: see :attr:`source_dictionary`."""
        return None

    def max_positions(self) -> None:
        """None: no clip is left out for its length."""
        return None

    def train_step(
        self,
        sample: Batch,
        model: nn.Module,
        criterion: FairseqCriterion,
        optimizer: FairseqOptimizer,
        update_num: int,
        ignore_grad: bool = False,
    ) -> BatchLoss:
        """Forward and backward pass of one micro-batch; ends the run if too many clips were skipped."""
        self._check_reading(sample)
        log_memory()
        decorrelate_rng()
        loss, sample_size, logged = super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        if ignore_grad:  # a dummy batch, because this rank has no more data; fairseq would count it
            sample_size, logged = _zero(sample_size), {key: _zero(value) for key, value in logged.items()}
        return loss, sample_size, logged

    def valid_step(self, sample: Batch, model: nn.Module, criterion: FairseqCriterion) -> BatchLoss:
        """Loss of a batch; ends a training run as :meth:`train_step` does."""
        self._check_reading(sample)
        return super().valid_step(sample, model, criterion)

    def explain_bad_update(self, samples: Sequence[Batch], error: FloatingPointError) -> None:
        """End the run with the clips of an update whose loss or gradients are not finite, on this rank."""
        rows = {row for sample in samples if sample for row in sample["id"].tolist()}
        for media in self.media.values():
            if media.training:
                clips = ", ".join(media.manifest.path(row) for row in sorted(rows))
                with exit_on_input_error():
                    raise InputError(f"{error}, with these clips of {media.manifest.name} in the update: {clips}")

    def _check_reading(self, sample: Batch) -> None:
        """End the run if a batch reports an error, clips have disappeared, or too many were skipped in training."""
        with exit_on_input_error():
            checked_batch(sample)
            for media in self.media.values():
                media.check_storage()
            if any(media.training for media in self.media.values()):
                for media in self.media.values():
                    media.skips.check(self.cfg.max_skipped)


def _zero(value: Tensor | float) -> Tensor | int:
    """0 of the same type: a number, or a tensor on its device."""
    return torch.zeros_like(value) if torch.is_tensor(value) else 0
