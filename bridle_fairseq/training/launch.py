"""One fine-tuning run after another: stock fairseq-hydra-train in a process of its own, and its test."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bridle_fairseq.demo.training import CONFIGS, PACKAGE, find_script
from bridle_fairseq.training import log
from bridle_fairseq.utils.errors import InputError

FINETUNING_CONFIGS = CONFIGS.parent / "finetuning"
MULTI_LABEL = (
    "task.multi_label=true",
    "checkpoint.best_checkpoint_metric=mAP",
)  # overrides, any number of classes a clip


class FineTuningRun(NamedTuple):
    """What is trained and where; a run that was stopped goes on where it was saved last."""

    checkpoint: str
    data: Path  # train, valid and test .tsv and .lbl, labels.csv
    folder: Path  # gets the checkpoints and the log
    config_dir: Path
    config_name: str
    overrides: Sequence[str]

    def command(self) -> list[str]:
        """As it would be typed."""
        import torch

        return [
            find_script(),
            *("--config-dir", str(self.config_dir), "--config-name", self.config_name),
            f"common.user_dir={PACKAGE}",
            f"task.data={self.data}",
            f"model.checkpoint={self.checkpoint}",
            f"checkpoint.save_dir={self.folder / 'checkpoints'}",
            f"hydra.run.dir={self.folder / 'hydra'}",
            *([] if torch.cuda.is_available() else ["common.cpu=true"]),
            *self.overrides,
        ]

    def train(self) -> Path:
        """Train to the end; the checkpoint that was best on the validation part.

        Raises:
            InputError: training failed; says why, and where all that it printed is.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "train.log"
        with open(path, "a", encoding="utf-8") as file:
            code = subprocess.run(self.command(), stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if code != 0:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            raise InputError(f"fine-tuning failed: {log.last_error(lines)} (all that it printed: {path})")
        best = self.folder / "checkpoints" / "checkpoint_best.pt"
        if not best.is_file():
            raise InputError(f"{best}: fine-tuning ended without it; expected a validation after training")
        return best


def score_split(checkpoint: Path, data: Path, split: str, batch_size: int, device: str) -> tuple[float, float]:
    """Accuracy (with any number of classes a clip: mAP) on a split, and the best validation value of the training.

    Clips are cropped as in validation. mAP is the mean over the classes that have a positive in the split.
    """
    import torch
    from fairseq import checkpoint_utils

    from bridle_fairseq.evaluation.classification import evaluate
    from bridle_fairseq.inference.classify import score_dataset

    overrides = {"data": str(data)}
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], arg_overrides=overrides)
    valid = torch.load(checkpoint, map_location="cpu", weights_only=False)["extra_state"]["best"]
    model = models[0].to(device).eval()
    task.load_dataset(split)
    dataset = task.dataset(split)
    rows, scores = score_dataset(model, dataset, dataset.multi_label, batch_size, workers=0)
    if not len(rows):
        raise InputError(f"{data / split}.tsv: not one clip can be read; expected some")
    found = evaluate(scores, dataset.targets(rows.tolist()).numpy())
    return found.values["mAP" if dataset.multi_label else "accuracy"], float(valid)


def write_untrained(checkpoint: str, path: Path, seed: int) -> str:
    """A checkpoint of the same settings with fresh random weights, from which to train from scratch; its path."""
    import torch

    from bridle_fairseq.data.utils.files import atomic_binary
    from bridle_fairseq.inference.extractors import untrained_twin
    from bridle_fairseq.models.checkpoints import load_model

    if not path.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=False)
        state["model"] = untrained_twin(load_model(checkpoint)[0], seed).state_dict()
        with atomic_binary(path) as file:
            torch.save(state, file)
    return str(path)
