"""What tasks that fine-tune a pretrained encoder share: what the checkpoint keeps of it, and resuming."""

from dataclasses import asdict

from omegaconf import open_dict

from bridle_fairseq.models.checkpoints import restored_state
from bridle_fairseq.tasks.base import MediaTask
from bridle_fairseq.utils.errors import InputError, exit_on_input_error


class FineTuningTask(MediaTask):
    """A task whose outputs have names that are part of its state, and whose model begins with a checkpoint."""

    @staticmethod
    def check_schedule(root) -> None:
        """Refuse a run that is warm-up alone."""
        warmup = getattr(root.get("lr_scheduler"), "warmup_updates", 0)
        if warmup and warmup == root.optimization.max_update:  # fairseq divides by the updates that are left
            found = f"lr_scheduler.warmup_updates and optimization.max_update are both {warmup}"
            raise InputError(f"{found}; expected more updates than those of the warm-up")

    def build_model(self, cfg, from_checkpoint=False):
        """Build the model of a configuration.

        The settings of a new model's encoder are written into the run's configuration, which fairseq saves with the
        weights: what was fine-tuned loads without the checkpoint it was made from.
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

    def build_criterion(self, cfg):
        """Build the criterion of a configuration."""
        with exit_on_input_error():
            return super().build_criterion(cfg)

    def _check_restored(self) -> None:
        """Refuse to go on where outputs would get other names."""
        state, path = restored_state(self.cfg)
        if path is not None:
            self.check_state(state, f"as in {path}, from which this run goes on")

    def check_state(self, state, source) -> None:
        """Refuse outputs of other names than those in a checkpoint's task state; ``source`` says where that is from."""
        raise NotImplementedError


def first_difference(found, expected):
    """(place, what is there, what should be) of the first difference between two lists; None for nothing there."""
    for place in range(max(len(found), len(expected))):
        pair = tuple(names[place] if place < len(names) else None for names in (found, expected))
        if pair[0] != pair[1]:
            return place, *pair
    return None
