"""fairseq task ``bridle_reconstruction``: manifests to batches, for a decoder that gives log-mel back from codes."""

from dataclasses import asdict, dataclass

from fairseq.tasks import register_task
from omegaconf import open_dict

from bridle_fairseq.tasks.base import MediaConfig, MediaTask
from bridle_fairseq.utils.errors import InputError, exit_on_input_error


@dataclass
class BridleReconstructionConfig(MediaConfig):
    """The data."""


@register_task("bridle_reconstruction", dataclass=BridleReconstructionConfig)
class BridleReconstructionTask(MediaTask):
    """Loads manifests; what is to be decoded is in the clips themselves."""

    cfg: BridleReconstructionConfig

    def load_dataset(self, split, combine=False, task_cfg=None, **kwargs):
        """Read ``{data}/{split}.tsv``."""
        with exit_on_input_error():
            self.datasets[split] = self.media_dataset(split, task_cfg or self.cfg)

    def build_model(self, cfg, from_checkpoint=False):
        """Build the model of a configuration.

        The settings of a new decoder's tokenizer are written into the run's configuration, which fairseq saves with
        the weights: it loads without the checkpoint it was made from.
        """
        with exit_on_input_error():
            if not from_checkpoint and getattr(cfg, "settings", None) is not None:
                raise InputError("model.settings is set; expected null, as they are those of model.checkpoint")
            model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint and "settings" in cfg:
            with open_dict(cfg):
                cfg.settings, cfg.checkpoint_sha256 = asdict(model.settings), model.checkpoint_sha256
        return model
