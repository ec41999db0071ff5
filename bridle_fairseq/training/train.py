"""A training run by the name of its configuration: its paths, the statistics of its data, its folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bridle_fairseq.training.configs import Config, compose, find_config
from bridle_fairseq.training.launch import TrainingRun, find_script, override
from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from bridle_fairseq.nn.settings import BridleSettings

# Settings that hold a path. hydra changes the working directory, so that they must be absolute.
PATHS = (
    "task.data",
    "task.codes",
    "task.knn_data",
    "task.results",
    "model.checkpoint",
    "checkpoint.finetune_from_model",
    "checkpoint.restore_file",
)
STATISTICS = ("fbank_mean", "fbank_std", "pixel_mean", "pixel_std")  # settings of a model
MAX_CLIPS = 5000  # of a corpus, that are measured for its statistics
_OVERRIDE = re.compile(r"\+{0,2}[^\s=]+=.*|~[^\s=]+", re.DOTALL)


@dataclass(frozen=True)
class TrainOptions:
    """What is trained.

    Attributes:
        config: name such as ``audio/small``, or a file.
        data: folder of the manifests.
        run: folder of the run. If it exists, the run goes on.
        overrides: ``key=value`` of the configuration, with paths relative to the working directory.
    """

    config: str
    data: str
    run: str
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class PreparedRun:
    """A run that can start.

    Attributes:
        training: its command.
        updates: its length; None if it is not known before it starts.
    """

    training: TrainingRun
    updates: int | None


def prepare(options: TrainOptions, say: Callable[[str], object]) -> PreparedRun:
    """Find the configuration, make paths absolute, and get the statistics of the data of a pretraining run.

    Args:
        options: what is trained.
        say: called with lines about the statistics.

    Raises:
        InputError: no such configuration or data, or a malformed override.
    """
    config, run = find_config(options.config), Path(options.run).absolute()
    find_script()
    if run.exists() and not run.is_dir():
        raise InputError(f"{options.run}: a file; expected the folder of the run, or none")
    given = [override("task.data", Path(options.data).absolute()), *map(_absolute, options.overrides)]
    cfg = _composed(config, given)
    if cfg is None:
        statistics, updates = [], None  # the run itself reports the mistake, in one sentence
    else:
        _check_data(options, cfg)
        statistics, updates = _statistics(options, cfg, run, say), _updates(cfg)
    has_format = any(text.startswith("common.log_format=") for text in given)
    overrides = [given[0], *statistics, *([] if has_format else ["common.log_format=json"]), *given[1:]]
    return PreparedRun(TrainingRun(*config, run, run, overrides), updates)


def _absolute(text: str) -> str:
    """An override; a path relative to the working directory is made absolute."""
    if not _OVERRIDE.fullmatch(text):
        raise InputError(f"{text!r}; expected settings as key=value, such as optimization.max_update=1000")
    name, _, value = text.partition("=")
    checkpoint = name == "model.checkpoint" and value.endswith(".pt") and "$" not in value  # no name on the Hub
    if name in PATHS and value and (Path(value).exists() or checkpoint):
        return override(name, Path(value).absolute())
    return text


def _composed(config: Config, overrides: Sequence[str]) -> DictConfig | None:
    """The configuration of the run; None if there is a mistake in it."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return compose(config, overrides)
    except (HydraException, OmegaConfBaseException, ValueError, KeyError, AttributeError):
        return None


def _check_data(options: TrainOptions, cfg: DictConfig) -> None:
    task, split = str(cfg.task.get("_name")), str(cfg.dataset.train_subset)
    if task.startswith("bridle_") and not Path(options.data, f"{split}.tsv").is_file():
        if Path(options.data).is_file():
            raise InputError(f"{options.data}: a file; expected the folder of {split}.tsv")
        kind = cfg.task.get("modality", "audio")
        manifest = "bridle manifest MEDIA --dest FOLDER" + (f" --modality {kind}" if kind != "audio" else "")
        expected = f"a folder that bridle manifest wrote: {manifest}"
        raise InputError(f"{options.data}: no {split}.tsv; expected {expected}")


def _updates(cfg: DictConfig) -> int | None:
    """Updates of the run; None if epochs end it."""
    if cfg.optimization.max_update:
        return int(cfg.optimization.max_update)
    if cfg.task._name != "bridle_pretraining":
        return None
    from bridle_fairseq.models.bridle import settings_from

    return settings_from(cfg.model).schedule().total_updates


def _statistics(options: TrainOptions, cfg: DictConfig, run: Path, say: Callable[[str], object]) -> list[str]:
    """Statistics of the data as overrides of a pretraining run that has those of its configuration's defaults."""
    from bridle_fairseq.models.bridle import settings_from
    from bridle_fairseq.nn.settings import BridleSettings

    if cfg.task._name != "bridle_pretraining":
        return []
    settings, defaults = settings_from(cfg.model), BridleSettings()
    if any(getattr(settings, name) != getattr(defaults, name) for name in STATISTICS):
        return []  # somebody has chosen them
    return _statistics_of_run(run) or _kept_or_measured(options.data, cfg, settings, say)


def _statistics_of_run(run: Path) -> list[str]:
    """The statistics with which a run was started. They stay, whatever its manifest holds now."""
    from bridle_fairseq.models.checkpoint_file import read_state

    path = run / "checkpoint_last.pt"
    if not path.is_file():
        return []
    try:
        model = read_state(str(path))["cfg"]["model"]
        names = [name for name in STATISTICS if name.startswith("fbank") == (model.get("modality", "audio") == "audio")]
        return [f"model.{name}={model[name]}".replace(" ", "") for name in names]
    except (InputError, KeyError, TypeError, AttributeError):
        return []  # damaged: the run says which older checkpoint takes its place


def _kept_or_measured(data: str, cfg: DictConfig, settings: BridleSettings, say: Callable[[str], object]) -> list[str]:
    from bridle_fairseq.models.bridle import plain
    from bridle_fairseq.prepare.statistics import StatisticsOptions, kept_or_measured

    task = plain(cfg.task)
    options = StatisticsOptions(
        modality=settings.modality,
        max_clips=MAX_CLIPS,
        sample_rate=settings.sample_rate,
        num_mel_bins=settings.num_mel_bins,
        **{name: task[name] for name in ("image_size", "num_frames", "frame_stride") if task.get(name)},
    )
    path = Path(data, f"{cfg.dataset.train_subset}.tsv")
    return kept_or_measured(str(path), options, task.get("max_skipped", 0.01), say)
