"""What the tasks share: where the data are, reading a split, and what happens to clips that are no good."""

import os
from dataclasses import dataclass, field

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import FairseqTask
from omegaconf import II, MISSING, MissingMandatoryValue

from bridle_fairseq.data.dataset import checked_batch
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog, list_size
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.tasks.datasets import FairseqMedia
from bridle_fairseq.tasks.memory import log_memory
from bridle_fairseq.utils.distributed import decorrelate_rng
from bridle_fairseq.utils.errors import InputError, exit_on_input_error
from bridle_fairseq.utils.memory import keep_freed_memory

SKIPPED = "skipped.tsv"  # in the run's folder


@dataclass
class WaveformOptions(FairseqDataclass):
    """How sound is read, whole or in part."""

    sample_rate: int = field(default=16000, metadata={"help": "audio: samples a second; other files are resampled"})
    max_sample_size: int = field(
        default=163840,
        metadata={"help": "audio: longest clip in samples: a random crop in training, the first ones in validation"},
    )
    gain: bool = field(default=True, metadata={"help": "audio, augment: multiply the clip by Beta(10, 10) + 0.5"})


@dataclass
class AudioOptions(WaveformOptions):
    """How sound is read whose order in time does not matter."""

    roll: bool = field(default=True, metadata={"help": "audio, augment: roll the clip by a random number of samples"})


@dataclass
class ImageOptions(FairseqDataclass):
    """How images, and frames of video, are read."""

    image_size: int = field(
        default=224,
        metadata={"help": "image, video: height and width in pixels; 0: as they are, padded in batches"},
    )
    valid_crop: float = field(
        default=0.875, metadata={"help": "image, video, validation: the middle, this share of the shorter side"}
    )
    crop: bool = field(default=True, metadata={"help": "image, video, augment: show a random part of it"})
    min_area: float = field(default=0.2, metadata={"help": "image, video, augment: smallest share of its area"})
    flip: bool = field(default=True, metadata={"help": "image, video, augment: mirror half of them, left to right"})
    repeats: int = field(
        default=1,
        metadata={"help": "image, video, augment: random views of each file in its batch; it is decoded once for all"},
    )
    rand_augment: int = field(default=0, metadata={"help": "image, video, augment: operations of RandAugment; 0: none"})
    rand_magnitude: int = field(default=9, metadata={"help": "image, video, augment: their strength, 0 to 30"})
    erase: float = field(default=0.0, metadata={"help": "image, video, augment: probability of erasing a rectangle"})


@dataclass
class VideoOptions(FairseqDataclass):
    """Which frames of a video are shown."""

    num_frames: int = field(default=16, metadata={"help": "video: frames of a clip"})
    frame_stride: int = field(default=4, metadata={"help": "video: from one frame of a clip to the next"})
    random_start: bool = field(
        default=True, metadata={"help": "video, augment: show a clip from anywhere, not the one in the middle"}
    )


@dataclass
class DataOptions(FairseqDataclass):
    """Where the data are, and how items are drawn from them."""

    data: str = field(default=MISSING, metadata={"help": "folder with {split}.tsv manifests"})
    read_threads: int = field(
        default=1,
        metadata={"help": "files that each data loader worker reads at once: more for storage that answers late"},
    )
    num_buckets: int = field(default=16, metadata={"help": "buckets of like length from which batches are drawn"})
    max_skipped: float = field(
        default=0.01, metadata={"help": "stop when more than this share of the clips is unreadable"}
    )
    seed: int = II("common.seed")


@dataclass
class MediaConfig(AudioOptions, ImageOptions, VideoOptions, DataOptions):
    """Data of any modality; what is for one modality says so."""

    modality: str = field(default="audio", metadata={"help": "what the files are: audio, image or video"})


class MediaTask(FairseqTask):
    """Reads manifests, counts skipped clips, and turns a user's mistake into one sentence and exit code 2."""

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """Check what can be checked before anything is built; a user's mistake ends here."""
        with exit_on_input_error():
            root = cfg._get_root() if hasattr(cfg, "_get_root") else None
            if root is not None and "model" in root and root.model is not None:
                cls.complete(root)
        return cls(cfg, **kwargs)

    @classmethod
    def complete(cls, root) -> None:
        """Fill in what follows from other settings of a run, and refuse what cannot work."""
        if getattr(root.model, "_name", None) == "bridle_tokenizer":
            raise InputError(
                "model bridle_tokenizer is taken from a checkpoint and not trained by itself; "
                "expected model bridle with a stage of kind tokenizer"
            )
        if "common" in root and root.common.fp16:
            # A flattened copy of all parameters can neither keep some frozen nor tell matrices from biases.
            root.common.fp16_no_flatten_grads = True

    def __init__(self, cfg, **kwargs):
        super().__init__(cfg, **kwargs)
        self.skips = {}
        self._skipped_before = list_size(SKIPPED)  # now: once files are read, another rank may have listed some

    def build_model(self, cfg, from_checkpoint=False):
        """Build the model; before training the data must be there, of which fairseq is sure without a look."""
        if not from_checkpoint:
            with exit_on_input_error():
                folder = self.data_folder(self.cfg)
                if not os.path.isdir(folder):
                    raise InputError(
                        f"task.data is {folder}, which is no folder; expected one with {{split}}.tsv manifests"
                    )
            if not torch.cuda.is_available():
                keep_freed_memory()
        return super().build_model(cfg, from_checkpoint)

    @staticmethod
    def data_folder(cfg) -> str:
        """``task.data``, which must be set."""
        try:
            folder = cfg.data
        except MissingMandatoryValue:
            folder = MISSING
        if folder in (MISSING, None):
            raise InputError("task.data is not set; expected the folder of {split}.tsv manifests")
        return folder

    def media_dataset(
        self, split, cfg, manifest=None, kind=FairseqMedia, codes=None, reading=None, **options
    ) -> FairseqMedia:
        """The files of ``{data}/{split}.tsv``; splits whose names begin with "train" are cropped and augmented.

        Args:
            split: name of the split.
            cfg: a :class:`MediaConfig`.
            manifest: the split's, where it has been read already.
            kind: class of the data set.
            codes: cached codes of the split.
            reading: what the modality's data set takes besides, by name.
            options: what the class takes besides.

        Raises:
            InputError: as :class:`Manifest` and the modality's data set do.
        """
        if manifest is None:
            manifest = self.manifest(split, cfg)
        training = split.startswith("train")
        self.skips[split] = SkipLog(manifest, os.path.abspath(SKIPPED), self._skipped_before)
        media = modality_of(cfg).dataset(manifest, cfg, training, skips=self.skips[split], codes=codes, **reading or {})
        return kind(media, keep_precision=self._casts_batches(), read_threads=cfg.read_threads, **options)

    def _casts_batches(self) -> bool:
        root = self.cfg._get_root() if hasattr(self.cfg, "_get_root") else None
        return root is not None and "common" in root and bool(root.common.get("fp16") or root.common.get("bf16"))

    def manifest(self, split, cfg) -> Manifest:
        """The rows of ``{data}/{split}.tsv``."""
        return Manifest.read(os.path.join(self.data_folder(cfg), f"{split}.tsv"))

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

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """Forward and backward of one micro-batch, unless too many clips had to be skipped."""
        with exit_on_input_error():
            checked_batch(sample)
            for log in self.skips.values():
                log.check(self.cfg.max_skipped)
        log_memory()
        decorrelate_rng()
        loss, sample_size, log = super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        if ignore_grad:  # a stand-in for a batch that this rank does not have: fairseq would count it
            sample_size, log = _zero(sample_size), {key: _zero(value) for key, value in log.items()}
        return loss, sample_size, log

    def valid_step(self, sample, model, criterion):
        """Loss of a batch."""
        with exit_on_input_error():
            checked_batch(sample)
        return super().valid_step(sample, model, criterion)


def _zero(value):
    """0 as this value is one: a number, or a tensor on its device."""
    return torch.zeros_like(value) if torch.is_tensor(value) else 0
