"""fairseq task ``bridle_reconstruction``: clips for a decoder from codes to log-mel."""

from dataclasses import asdict, dataclass
from typing import Any

from fairseq.models import BaseFairseqModel
from fairseq.tasks import register_task
from omegaconf import DictConfig, open_dict

from bridle_fairseq.tasks.base import MediaConfig, MediaTask
from bridle_fairseq.utils.errors import InputError, exit_on_input_error


@dataclass
class BridleReconstructionConfig(MediaConfig):
    """Data."""


@register_task("bridle_reconstruction", dataclass=BridleReconstructionConfig)
class BridleReconstructionTask(MediaTask):
    """Loads manifests; the targets are the log-mel values of the clips."""

    cfg: BridleReconstructionConfig

    def load_dataset(
        self, split: str, combine: bool = False, task_cfg: BridleReconstructionConfig | None = None, **kwargs: Any
    ) -> None:
        """Load ``{data}/{split}.tsv``."""
        with exit_on_input_error():
            self.datasets[split] = self.media_dataset(split, task_cfg or self.cfg)

    def build_model(self, cfg: DictConfig, from_checkpoint: bool = False) -> BaseFairseqModel:
        """Build the model.

        The settings of a new decoder's tokenizer are written into the configuration of the run. fairseq saves it with
        the weights, so that the decoder loads without the tokenizer's checkpoint.
        """
        with exit_on_input_error():
            if not from_checkpoint and getattr(cfg, "settings", None) is not None:
                raise InputError("model.settings is set; expected null, as they are those of model.checkpoint")
            model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint and "settings" in cfg:
            with open_dict(cfg):
                cfg.settings, cfg.checkpoint_sha256 = asdict(model.settings), model.checkpoint_sha256
        return model
