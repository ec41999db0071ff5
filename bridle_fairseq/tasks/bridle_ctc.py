"""fairseq task ``bridle_ctc``: clips with transcripts, for CTC."""

import functools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairseq.criterions import FairseqCriterion
from fairseq.models import BaseFairseqModel
from fairseq.tasks import register_task
from omegaconf import DictConfig
from torch import nn

from bridle_fairseq.criterions.totals import BatchLoss
from bridle_fairseq.data.collate import Batch
from bridle_fairseq.data.manifests.transcripts import SPECIAL, Transcripts, Vocabulary
from bridle_fairseq.nn.ctc import Transcriber, emitted_frames
from bridle_fairseq.nn.frontend import front_end_of
from bridle_fairseq.tasks.base import DataOptions, WaveformOptions
from bridle_fairseq.tasks.datasets import TranscribedMedia
from bridle_fairseq.tasks.finetuning import FineTuningTask, first_difference
from bridle_fairseq.utils.errors import InputError, exit_on_input_error

logger = logging.getLogger(__name__)
METRICS = ("loss", "uer", "wer")


@dataclass
class BridleCtcTaskConfig(WaveformOptions, DataOptions):
    """Data with ``dict.{labels}.txt`` and ``{split}.{labels}`` in the same folder.

    Clips are not cropped, because their transcripts could not be. Clips longer than ``max_sample_size`` are skipped.
    """

    labels: str = field(default="ltr", metadata={"help": "ltr: letters; spm: pieces of SentencePiece"})


@register_task("bridle_ctc", dataclass=BridleCtcTaskConfig)
class BridleCtcTask(FineTuningTask):
    """Loads manifests and transcripts. The dictionary is part of the task's state, which is saved in checkpoints."""

    cfg: BridleCtcTaskConfig

    def __init__(self, cfg: BridleCtcTaskConfig, **kwargs: Any) -> None:
        super().__init__(cfg, **kwargs)
        self.state.add_factory("symbols", lambda: self._read_vocabulary(self.cfg).symbols)
        self._frames: Callable[[int], int] | None = None

    @classmethod
    def complete(cls, root: DictConfig) -> None:
        """See :meth:`MediaTask.complete`."""
        super().complete(root)
        if not {"checkpoint", "optimization"} <= set(root):
            return  # the task is used without a run
        best = root.checkpoint.best_checkpoint_metric
        if best not in METRICS:
            raise InputError(f"checkpoint.best_checkpoint_metric is {best!r}; expected one of {', '.join(METRICS)}")
        if root.checkpoint.maximize_best_checkpoint_metric:
            raise InputError(f"checkpoint.maximize_best_checkpoint_metric is true with {best}; expected false")
        cls.check_schedule(root)

    @property
    def vocabulary(self) -> Vocabulary:
        """Dictionary of the checkpoint, or of the data in a new run."""
        return Vocabulary(self.state.symbols, self.cfg.labels)

    def _read_vocabulary(self, cfg: BridleCtcTaskConfig) -> Vocabulary:
        return Vocabulary.read(self.data_folder(cfg), cfg.labels)

    def check_state(self, state: dict[str, Any], source: str) -> None:
        """See :meth:`FineTuningTask.check_state`: the dictionary must be that of the checkpoint."""
        if state.get("symbols") is not None:
            self._check_symbols(self._read_vocabulary(self.cfg), state["symbols"], source)

    @staticmethod
    def _check_symbols(vocabulary: Vocabulary, expected: Sequence[str], source: str) -> None:
        different = first_difference(vocabulary.symbols, expected)
        if different:
            place, here, there = different
            line = place - len(SPECIAL) + 1
            raise InputError(f"{vocabulary.source}, line {line}: {here!r}; expected {there!r}, {source}")

    def build_model(self, cfg: DictConfig, from_checkpoint: bool = False) -> BaseFairseqModel:
        """Build the model, and log its resolution in time."""
        model = super().build_model(cfg, from_checkpoint)
        # not the model's own front end, as this one is sent to data loader workers
        self._frames = functools.partial(emitted_frames, front_end_of(model.settings), model.upsample)
        if not from_checkpoint:
            logger.info(self._resolution(model))
        return model

    @staticmethod
    def _resolution(model: Transcriber) -> str:
        return (
            f"a frame is {model.frame_ms:g} ms: patches of {model.settings.patch_size[0]} x 10 ms, each of which emits "
            f"{model.upsample}; {model.front_end.rows} rows of patches, {model.pooling} pooling"
        )

    def valid_step(self, sample: Batch, model: nn.Module, criterion: FairseqCriterion) -> BatchLoss:
        """Loss and logging of a batch; fairseq-validate also passes empty ones."""
        return super().valid_step(sample, model, criterion) if sample else (0.0, 0, {})

    def load_dataset(
        self, split: str, combine: bool = False, task_cfg: BridleCtcTaskConfig | None = None, **kwargs: Any
    ) -> None:
        """Load ``{data}/{split}.tsv`` with its transcripts ``{split}.{labels}`` and the dictionary."""
        cfg = task_cfg or self.cfg
        with exit_on_input_error():
            manifest, vocabulary = self.manifest(split, cfg), self._read_vocabulary(cfg)
            self._check_symbols(vocabulary, self.state.symbols, "as in the checkpoint's dictionary")
            path = os.path.join(self.data_folder(cfg), f"{split}.{cfg.labels}")
            self.datasets[split] = self.media_dataset(
                split,
                cfg,
                manifest,
                TranscribedMedia,
                media_options={"whole": True},
                transcripts=Transcripts.read(path, manifest, vocabulary),
                frames=self._frames,
            )
