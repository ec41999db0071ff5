"""A training run, read from its folder: log, configuration and checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.report.charts import Band
from bridle_fairseq.training.log import Record, parse, parse_board
from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:
    from bridle_fairseq.models.checkpoints import Checkpoint

LOG_NAMES = ("hydra_train.log", "train.log", "log")
ATTEMPTS = 5  # to read a checkpoint that a run replaces


@dataclass
class Run:
    """A run of the task ``bridle_pretraining``, ``bridle_classification`` or ``bridle_ctc``.

    Attributes:
        folder: folder of the run.
        name: on pages.
        records: records of the log.
        cfg: configuration of the run, from the checkpoint: plain values, of any kinds outside of model and task.
        task: configuration of the task, checked, without its folders.
        model: model of the newest checkpoint, in eval mode on the CPU.
        updates: number of finished updates of the checkpoint.
        checkpoint: its path.
    """

    folder: Path
    name: str
    records: list[Record]
    cfg: Mapping[str, Any]
    task: Any
    model: Any
    updates: int
    checkpoint: Path

    @property
    def pretraining(self) -> bool:
        """Whether it is a run of ``bridle_pretraining``."""
        return isinstance(self.model, Bridle)

    @property
    def num_levels(self) -> int:
        """Levels of codes; 0 in fine-tuning."""
        return self.model.settings.num_codebooks if self.pretraining else 0

    @property
    def bands(self) -> list[Band]:
        """The stages that have begun; none in fine-tuning."""
        if not self.pretraining:
            return []
        last = max([self.updates, *(record.update for record in self.records)])
        return stage_bands(self.model.settings.schedule().stages, last)


def stage_bands(stages: Iterable[Stage], last: int | None = None) -> list[Band]:
    """Stages as bands of a chart, up to the update ``last``; None: all of them."""
    bands, start, encoders = [], 0, 0
    for stage in stages:
        encoders += stage.kind == "encoder"
        number = encoders + (stage.kind == "tokenizer")
        name = "cold start" if start == 0 and stage.kind == "encoder" else f"{stage.kind} {number}"
        end = start + stage.updates
        if last is None or start < last:
            bands.append(Band(name, f"{stage.kind[0].upper()}{number}", start, end if last is None else min(end, last)))
        start = end
    return bands


def read_run(folder: str) -> Run:
    """Read the folder of a run: its log (or tensorboard files) and its newest checkpoint.

    Raises:
        InputError: no such folder, no log, no checkpoint, or one of another model.
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder; expected the one in which fairseq-hydra-train ran")
    records = _records(root)
    model, task, saved = _read_newest(root)
    return Run(root, root.name, records, saved.cfg, task.cfg, model, int(saved.updates or 0), Path(saved.path))


def _read_newest(root: Path) -> tuple[Any, Any, Checkpoint]:
    """Model, task and contents of the newest checkpoint, read again if a run replaced or removed the file meanwhile."""
    from bridle_fairseq.models.checkpoints import build_model, read_checkpoint

    attempts_left = ATTEMPTS
    while True:
        attempts_left -= 1
        checkpoint = _checkpoint(root)
        before = _identity(checkpoint)
        try:
            saved = read_checkpoint(str(checkpoint))
            return *build_model(saved), saved
        except InputError:
            if not attempts_left or (before is not None and _identity(checkpoint) == before):
                raise


def _identity(path: Path) -> tuple[int, int] | None:
    """What changes if a file is replaced; None without a file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _checkpoint(root: Path) -> Path:
    folders = [*_save_dir(root), root / "checkpoints", root]
    for folder in folders:
        if (folder / "checkpoint_last.pt").is_file():
            return folder / "checkpoint_last.pt"
    paths = [path for folder in folders for path in folder.glob("*.pt")]
    if not paths:
        listed = ", ".join(map(str, folders))
        raise InputError(f"{root}: no checkpoint; expected checkpoint_last.pt or another .pt file in one of {listed}")
    return max(paths, key=lambda path: (_identity(path) or (0, 0))[1])


def _save_dir(root: Path) -> list[Path]:
    """Folder of the checkpoints in hydra's copy of the configuration; none without a copy."""
    import yaml

    copy = root / ".hydra" / "config.yaml"
    if not copy.is_file():
        return []
    try:  # all values as texts: nothing is looked up, built or copied
        values = yaml.load(copy.read_bytes(), yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{copy}: no YAML ({reason}); expected the copy of the configuration, or no file") from None
    folder = group_of(values if isinstance(values, dict) else {}, "checkpoint").get("save_dir")
    if not isinstance(folder, str) or not folder or not os.path.isdir(root / folder):  # also if it is no path at all
        return []
    return [root / folder]


def _records(root: Path) -> list[Record]:
    """Records of the logs, else of tensorboard files."""
    paths = [path for name in LOG_NAMES for path in (root / name, root / "hydra" / name) if path.is_file()]
    lines = [line for path in paths for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    records = parse(lines) or parse_board(sorted(root.rglob("events.out.tfevents.*")))
    if not records:
        raise InputError(
            f"{root}: no log with JSON lines ({', '.join(LOG_NAMES)}) and no tensorboard files; "
            "expected a run with common.log_format=json or common.tensorboard_logdir"
        )
    return records


AUDIO, IMAGE = (
    ("max_sample_size", "roll", "gain"),
    ("image_size", "valid_crop", "crop", "min_area", "flip", "rand_augment", "erase"),
)
VIDEO = ("num_frames", "frame_stride", "random_start")
SHOWN = {
    "common": ("seed", "fp16", "bf16", "cpu"),
    "dataset": ("batch_size", "max_tokens"),
    "distributed_training": ("distributed_world_size",),
    "optimization": ("max_update", "update_freq", "lr", "clip_norm"),
    "optimizer": ("adam_betas", "weight_decay"),
    "task": ("data", "modality", *AUDIO, *IMAGE, *VIDEO, "codes", "labels", "weighted_sampling", "samples_per_epoch"),
    "criterion": ("label_smoothing", "mixup", "mixup_alpha"),
}


def configuration(cfg: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(setting, value) pairs of a run: all settings of the model, and some of the rest."""
    rows = []
    for group, names in SHOWN.items():
        values = group_of(cfg, group)
        rows += [(f"{group}.{name}", _text(values[name])) for name in names if values.get(name) is not None]
    model = dict(cfg["model"])
    model |= {f"settings.{name}": value for name, value in group_of(model, "settings").items()}
    model.pop("settings", None)
    model = {name: value for name, value in model.items() if not name.rpartition(".")[2].startswith("_")}
    return rows + [(f"model.{name}", _text(value)) for name, value in sorted(model.items())]


def group_of(cfg: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A group of settings; {} if there is none."""
    group = cfg.get(name)
    return group if isinstance(group, dict) else {}


def _text(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return "; ".join(", ".join(f"{k} {v}" for k, v in item.items()) for item in value)
    return re.sub(r"[\[\]{}']", "", str(value)) or "none"
