"""Base of the tasks that fine-tune a pretrained encoder."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from fairseq.criterions import FairseqCriterion
from fairseq.models import BaseFairseqModel
from omegaconf import DictConfig, open_dict

from bridle_fairseq.models.checkpoints import restored
from bridle_fairseq.tasks.base import MediaTask
from bridle_fairseq.utils.errors import InputError, exit_on_input_error


class FineTuningTask(MediaTask):
    """A task whose model starts from a checkpoint, and whose state has the names of the model's outputs."""

    @staticmethod
    def check_schedule(root: DictConfig) -> None:
        """Refuse a run with warm-up only."""
        warmup = getattr(root.get("lr_scheduler"), "warmup_updates", 0)
        if warmup and warmup == root.optimization.max_update:  # fairseq divides by the remaining updates
            raise InputError(
                f"lr_scheduler.warmup_updates and optimization.max_update are both {warmup}; expected more updates "
                "than those of the warm-up"
            )

    def build_model(self, cfg: DictConfig, from_checkpoint: bool = False) -> BaseFairseqModel:
        """Build the model.

        The settings of a new model's encoder are written into the configuration of the run. fairseq saves it with the
        weights, so that the fine-tuned model loads without the encoder's checkpoint.
        """
        with exit_on_input_error():
            if not from_checkpoint and getattr(cfg, "settings", None) is not None:
                raise InputError("model.settings is set; expected null, as they are those of model.checkpoint")
            model = super().build_model(cfg, from_checkpoint)
            if not from_checkpoint:
                self._check_restored()
        if not from_checkpoint and "settings" in cfg:
            with open_dict(cfg):
                cfg.settings = asdict(model.settings)
        return model

    def build_criterion(self, cfg: DictConfig) -> FairseqCriterion:
        """Build the criterion."""
        with exit_on_input_error():
            return super().build_criterion(cfg)

    def _check_restored(self) -> None:
        """Check the state of the checkpoint from which the run resumes."""
        checkpoint = restored(self.cfg)
        if checkpoint.path is not None:
            self.check_state(checkpoint.task_state, f"as in {checkpoint.path}, from which this run goes on")

    def check_state(self, state: dict[str, Any], source: str) -> None:
        """Check that outputs have the names in the task state of a checkpoint, which ``source`` describes.

        Raises:
            InputError: they have other names.
        """
        raise NotImplementedError


def first_difference(names: Sequence[str], expected: Sequence[str]) -> tuple[int, str | None, str | None] | None:
    """(index, name, expected name) of the first difference between two lists, with None beyond their end; or None."""
    for index, (name, expected_name) in enumerate(zip_longest(names, expected)):
        if name != expected_name:
            return index, name, expected_name
    return None
