"""fairseq task ``bridle_classification``: manifests, classes and labels to batches with targets."""

import os
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from fairseq.tasks import register_task
from omegaconf import open_dict

from bridle_fairseq.data.labels import Classes, Labels
from bridle_fairseq.errors import InputError
from bridle_fairseq.tasks.audio_data import AudioDataConfig, AudioTask, FairseqAudioDataset
from bridle_fairseq.tasks.user_errors import exit_on_input_error


class LabelledAudioDataset(FairseqAudioDataset):
    """Batches of sounds with ``"target"``: class numbers (B, long), or B x classes of 0 and 1 with ``multi_label``."""

    def __init__(self, manifest, *, labels: Labels, multi_label: bool, **options):
        super().__init__(manifest, **options)
        self.labels, self.multi_label = labels, multi_label

    def collater(self, samples):
        """Items to a batch, as without labels, and its targets."""
        batch = super().collater(samples)
        if batch:
            batch["target"] = self.targets(batch["id"].tolist())
        return batch

    def targets(self, rows):
        """Targets of these rows of the manifest."""
        if self.multi_label:
            return torch.from_numpy(np.stack([self.labels.multi_hot(row) for row in rows]))
        return torch.tensor([self.labels[row][0] for row in rows])


@dataclass
class BridleClassificationConfig(AudioDataConfig):
    """The data folder also holds ``labels.csv`` and ``{split}.lbl``."""

    multi_label: bool = field(
        default=False, metadata={"help": "a clip has any number of classes, each decided by itself; else exactly one"}
    )


@register_task("bridle_classification", dataclass=BridleClassificationConfig)
class BridleClassificationTask(AudioTask):
    """Loads manifests with their labels. The classes are part of the task's state, which every checkpoint holds."""

    cfg: BridleClassificationConfig

    def __init__(self, cfg, **kwargs):
        super().__init__(cfg, **kwargs)
        self.state.add_factory("classes", self._classes_of_data)

    @property
    def classes(self) -> Classes:
        """Those of the checkpoint, or of the data where there is none."""
        state = self.state.classes
        return Classes(state["ids"], state["names"])

    def _classes_of_data(self):
        classes = self._read_classes(self.cfg)
        return {"ids": classes.ids, "names": classes.names}

    def _read_classes(self, cfg) -> Classes:
        return Classes.read(os.path.join(self.data_folder(cfg), "labels.csv"))

    def load_dataset(self, split, combine=False, task_cfg=None, **kwargs):
        """Read ``{data}/{split}.tsv``, its labels ``{split}.lbl`` and the classes in ``labels.csv``."""
        cfg = task_cfg or self.cfg
        with exit_on_input_error():
            manifest = self.manifest(split, cfg)
            labels = self._labels(split, cfg, manifest)
            self.datasets[split] = self.audio_dataset(
                split, cfg, manifest, LabelledAudioDataset, labels=labels, multi_label=cfg.multi_label
            )

    def _labels(self, split, cfg, manifest) -> Labels:
        classes = self._read_classes(cfg)
        if classes.ids != self.classes.ids:
            raise InputError(
                f"{classes.source}: {len(classes)} classes that are not the {len(self.classes)} of the checkpoint; "
                "expected the same in the same order"
            )
        path = os.path.join(self.data_folder(cfg), f"{split}.lbl")
        labels = Labels.read(path, manifest, classes)
        if not cfg.multi_label and not labels.single:
            row = next(row for row in range(len(labels)) if len(labels[row]) != 1)
            found = f"{path}, line {row + 1}: {len(labels[row])} classes"
            raise InputError(f"{found}; expected exactly 1, unless task.multi_label is true")
        return labels

    def build_model(self, cfg, from_checkpoint=False):
        """Build the model of a configuration.

        The settings of a new classifier's encoder are written into the run's configuration, which fairseq saves with
        the weights: what was fine-tuned loads without the checkpoint it was made from.
        """
        with exit_on_input_error():
            if not from_checkpoint and getattr(cfg, "settings", None) is not None:
                raise InputError("model.settings is set; expected null, as they are those of model.checkpoint")
            model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint and "settings" in cfg:
            with open_dict(cfg):
                cfg.settings = asdict(model.settings)
        return model
