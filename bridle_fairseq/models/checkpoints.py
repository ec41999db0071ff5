"""Models in checkpoint files, whole or in parts, and what else a run saved.

A file may come from a stranger. :func:`.checkpoint_file.read_state` reads it, and :mod:`.checkpoint_config` decides
what of its configuration is used. Reading it runs nothing, resolves no interpolation, and opens no other file: folders
and files that the configuration names are not those of this machine. A report and a model card of a run are the
exception; they look for the run's manifests, ``{task.data}/{split}.tsv``, and count or show their clips, and a report
for the tables in ``task.results``.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from fairseq.tasks import setup_task
from torch import Tensor, nn

from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.exported.format import read_pretrained
from bridle_fairseq.exported.source import EXPECTED, find_export
from bridle_fairseq.models.bridle import plain, run_config, settings_from
from bridle_fairseq.models.checkpoint_config import TASKS, checked_name, checked_outputs, other_model, rebuilt_config
from bridle_fairseq.models.checkpoint_file import not_a_checkpoint, read_state, reason
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.code_tokenizer import CodeTokenizer
from bridle_fairseq.nn.settings import BridleSettings, checked_settings
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary

if TYPE_CHECKING:
    from bridle_fairseq.tasks.base import MediaTask

MODELS_WITH_ENCODER = ("bridle", "bridle_classifier", "bridle_ctc")  # their features can be extracted
SLACK, SPARE, MAX_MISSING = 4, 1 << 24, 64  # a model may be larger than the weights in the file: parts may be missing


@dataclass
class Checkpoint:
    """What is in a checkpoint file.

    Attributes:
        path: path of the file.
        model: registered name of its model.
        weights: state dict of the model, on the CPU.
        cfg: configuration of the run, as dictionaries and lists.
        state: other plain values of the run: task state, meters, number of updates.
    """

    path: str
    model: str
    weights: dict[str, Tensor]
    cfg: dict[str, Any]
    state: dict[str, Any]

    @cached_property
    def settings(self) -> BridleSettings:
        """Settings of the model.

        Raises:
            InputError: they are not in the file, or cannot work.
        """
        values = self.cfg["model"] if self.model == "bridle" else self.cfg["model"].get("settings")
        if values is None:
            raise other_model(self.path, self.model, MODELS_WITH_ENCODER)
        settings = checked_settings(values, self.path, ignore_unknown=True)
        if self.model == "bridle":
            depths = settings.encoder_depth, settings.decoder_depth, settings.tokenizer_depth, settings.estimator_depth
            if sum(depths) > len(self.weights) + MAX_MISSING:  # before they are built, which takes time
                raise self._too_large()
            self.check_size(lambda: Bridle(settings))
        return settings

    def check_size(self, build: Callable[[], nn.Module]) -> None:
        """Refuse a module that is far larger than the weights in the file, before it takes memory.

        Raises:
            InputError: its parameters and buffers have more values.
        """
        with torch.device("meta"):
            values = sum(value.numel() for value in build().state_dict().values())
        if values > SLACK * sum(value.numel() for value in self.weights.values()) + SPARE:
            raise self._too_large()

    def _too_large(self) -> InputError:
        return InputError(f"{self.path}: settings of a model that is far larger than its weights")

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """Names of the outputs of a fine-tuned model: ``classes`` (ids and names) or ``symbols``; {} for others.

        Raises:
            InputError: they are not in the file.
        """
        return checked_outputs(self.path, self.model, self.state.get("task_state"))

    def option(self, group: str, name: str) -> Any:
        """A setting of the task or the model.

        Raises:
            InputError: it is not in the file.
        """
        if name not in self.cfg.get(group, {}):
            raise InputError(f"{self.path}: no cfg.{group}.{name}; expected it in a checkpoint of {self.model!r}")
        return self.cfg[group][name]

    @property
    def updates(self) -> int | None:
        """Number of finished updates; None if it was not saved."""
        return self.value(int, "optimizer_history", -1, "num_updates")

    @property
    def best_score(self) -> float:
        """Best validation score of the run so far; NaN if it was not saved."""
        best = self.value((int, float), "extra_state", "best")
        return math.nan if best is None else float(best)

    def value(self, kind: Any, *keys: str | int) -> Any:
        """A value of the state by its keys; None if it is not there or of another type than ``kind``."""
        value: Any = self.state
        for key in keys:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value if isinstance(value, kind) else None


def read_checkpoint(path: str, names: Sequence[str] = MODELS_WITH_ENCODER, expected: str = EXPECTED) -> Checkpoint:
    """Read a checkpoint file without building its model.

    Args:
        path: path of the file.
        names: registered names of models, one of which it must be.
        expected: what the error message asks for when there is no file.

    Raises:
        InputError: no such file, not a checkpoint, or one of another model.
    """
    _check_exists(path, expected)
    state = read_state(path)
    weights, cfg = state.pop("model"), state.pop("cfg", None)
    return Checkpoint(path, checked_name(path, cfg, names), weights, cfg, state)


def load_model(
    path: str,
    device: str = "cpu",
    names: Sequence[str] | None = ("bridle",),
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:
    """Model and task of a checkpoint file: see :func:`build_model`.

    Args:
        path: path of the file.
        device: device of the model.
        names: registered names of models, one of which it must be; None: any model of this package.
        overrides: settings of the task to use instead of the checkpoint's, such as its folder ``data``.

    Raises:
        InputError: no such file, not a checkpoint, one of another model, or settings that do not fit the weights.
    """
    return build_model(read_checkpoint(path, tuple(TASKS) if names is None else names), device, overrides)


def build_model(
    checkpoint: Checkpoint, device: str = "cpu", overrides: Mapping[str, Any] | None = None
) -> tuple[Any, Any]:
    """A checkpoint's model, in eval mode on a device, and its task.

    The task reads files as in training. It knows none of the training's folders.

    Args:
        checkpoint: of a model of this package.
        device: device of the model.
        overrides: settings of the task to use instead of the checkpoint's, such as its folder ``data``.

    Raises:
        InputError: settings that cannot work, or do not fit the weights.
    """
    checkpoint.option("task", "_name")  # is there
    outputs = checkpoint.outputs
    checkpoint.settings  # noqa: B018  # are checked
    cfg = rebuilt_config(checkpoint.path, checkpoint.model, checkpoint.cfg, overrides or {})
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    with _loading(checkpoint.path):
        task = setup_task(cfg.task)
        task.load_state_dict(outputs)
        if checkpoint.model != "bridle":
            checkpoint.check_size(lambda: task.build_model(cfg.model, from_checkpoint=True))
        model = task.build_model(cfg.model, from_checkpoint=True)
        model.set_num_updates(checkpoint.updates or 0)
    load_weights(model, checkpoint.weights, checkpoint.path)
    return model.to(device).eval(), task


def read_bridle(path: str | None, part: str = "encoder") -> tuple[BridleSettings, dict[str, Tensor]]:
    """Settings and weights in a checkpoint or an export of the model ``bridle``.

    Args:
        path: path of the file or folder, or a Hub name.
        part: what an export must hold, ``encoder`` or ``tokenizer``.

    Raises:
        InputError: no path, no such file, not a checkpoint, one of another model, or an export without this part.
    """
    if not path:
        raise InputError("model.checkpoint is not set; expected the path of a checkpoint of the model 'bridle'")
    folder = find_export(path)
    if folder is not None:
        return read_pretrained(folder, part)
    checkpoint = read_checkpoint(path, ("bridle",), f"{EXPECTED}, of the model 'bridle'")
    return checkpoint.settings, checkpoint.weights


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Load weights from the checkpoint at ``path`` into a module: all of its weights and no others.

    Raises:
        InputError: weights are missing, unknown, or of other sizes than the checkpoint's settings.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit its settings ({reason(error)})") from None


def load_tokenizer(module: CodeTokenizer, weights: Mapping[str, Tensor], path: str) -> None:
    """Load a checkpoint's weights into a :class:`CodeTokenizer`, with or without an estimator.

    Raises:
        InputError: as :func:`load_weights`, or the codebooks are not initialized yet.
    """
    ignored = ("encoder.", "decoder.", *(("estimator.",) if module.estimator is None else ()))
    own = {name: value for name, value in weights.items() if not name.startswith(ignored)}
    only_training = {name: value for name, value in module.state_dict().items() if name.startswith("teacher_norm.")}
    load_weights(module, only_training | own, path)  # which an export lacks
    if not module.quantizer.initialized:
        raise InputError(f"{path}: its codebooks have not been started; expected a checkpoint with some updates")


def pretrained_settings(cfg: Any, task: MediaTask) -> tuple[BridleSettings, dict[str, Tensor] | None]:
    """Settings of a model that fine-tunes ``cfg.checkpoint``, and the weights in that file.

    In the configuration that a fine-tuned model's checkpoint holds, ``cfg.settings`` is set. The settings are then
    those, and the weights are None, because fairseq loads the fine-tuned ones.

    Raises:
        InputError: the checkpoint cannot be used, or its modality or sample rate is not the task's.
    """
    weights = None
    if cfg.settings is None:
        settings, weights = read_bridle(cfg.checkpoint)
    else:
        settings = settings_from(cfg.settings)
    own = {name: getattr(cfg, name, None) for name in ("fbank_mean", "fbank_std", "pixel_mean", "pixel_std")}
    settings = replace(settings, **{name: plain(value) for name, value in own.items() if value is not None})
    modality = modality_of(task.cfg).name
    if settings.modality != modality:
        raise InputError(f"{cfg.checkpoint}: a model of modality {settings.modality}; expected {modality}, the task's")
    if settings.sample_rate != task.cfg.sample_rate:
        raise InputError(
            f"task.sample_rate is {task.cfg.sample_rate}; expected {settings.sample_rate}, that of {cfg.checkpoint}"
        )
    return settings, weights


def load_encoder(encoder: nn.Module, weights: Mapping[str, Tensor] | None, path: str) -> None:
    """Load the encoder's part of a pretrained model's weights; None: do nothing.

    Raises:
        InputError: as :func:`load_weights`.
    """
    if weights is not None:
        own = {name[len("encoder.") :]: value for name, value in weights.items() if name.startswith("encoder.")}
        load_weights(encoder, own, path)


class Restored(NamedTuple):
    """What a run resumes from; empty for a new run."""

    task_state: dict[str, Any]
    path: str | None
    model_cfg: Any  # the model's configuration in the checkpoint; None if it has none


def restored(cfg: Any) -> Restored:
    """The checkpoint from which a run resumes, without its weights: fairseq restores the model, but not the task.

    Args:
        cfg: the task's configuration, within that of the run.

    Raises:
        InputError: the file is not a checkpoint.
    """
    root = run_config(cfg)
    if "checkpoint" not in root:
        return Restored({}, None, None)
    path = root.checkpoint.restore_file
    if path == "checkpoint_last.pt":
        path = os.path.join(root.checkpoint.save_dir, path)
    if not path or not os.path.isfile(path):
        return Restored({}, None, None)
    with _loading(path):
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        return Restored(state.get("task_state") or {}, path, (state.get("cfg") or {}).get("model"))


def write_untrained(checkpoint: str, path: str | os.PathLike[str], seed: int) -> str:
    """Write a checkpoint with the same settings and random weights, to train from scratch; its path.

    An existing file is kept.
    """
    from bridle_fairseq.inference.extractors import random_init

    if not os.path.exists(path):
        if find_export(checkpoint) is None:
            read = read_checkpoint(checkpoint, ("bridle",))
            settings, state = build_model(read)[0].settings, {"cfg": read.cfg, **read.state}
        else:
            settings = read_bridle(checkpoint)[0]
            state = {"cfg": {"model": {"_name": "bridle", **asdict(settings)}, "task": {"_name": TASKS["bridle"]}}}
        with atomic_binary(path) as file:
            torch.save({"args": None, "model": random_init(settings, seed).state_dict(), **state}, file)
    return os.fspath(path)


def _check_exists(path: str, expected: str) -> None:
    if not os.path.isfile(path):
        here = "" if os.path.isabs(path) else f" in {os.getcwd()}"  # hydra changes the working directory
        found = "a folder" if os.path.isdir(path) else f"no such checkpoint{here}"
        raise InputError(f"{path}: {found}; expected {expected}")


@contextmanager
def _loading(path: str) -> Iterator[None]:
    """Report a file whose model cannot be built."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # invalid settings can raise any exception
        raise not_a_checkpoint(path, error) from None
