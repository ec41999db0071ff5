"""The only code that opens checkpoint files: whole models, parts of them, and what else a run saved."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from fairseq import checkpoint_utils
from fairseq.models import MODEL_REGISTRY
from omegaconf import OmegaConf
from torch import Tensor, nn

import bridle_fairseq
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.models.bridle import plain, run_config, settings_from
from bridle_fairseq.nn.code_tokenizer import CodeTokenizer
from bridle_fairseq.nn.settings import BridleSettings, checked_settings
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary

if TYPE_CHECKING:
    from bridle_fairseq.tasks.base import MediaTask

MODELS_WITH_ENCODER = ("bridle", "bridle_classifier", "bridle_ctc")  # their features can be extracted
FAIRSEQ_FILE = "a file that fairseq-hydra-train wrote"


@dataclass
class Checkpoint:
    """What is in a checkpoint file.

    Attributes:
        path: path of the file.
        model: registered name of its model.
        weights: state dict of the model, on the CPU.
        cfg: configuration of the run, as dictionaries and lists.
        state: everything else.
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
            raise _other_model(self.path, self.model, MODELS_WITH_ENCODER)
        return checked_settings(values, self.path, ignore_unknown=True)

    @property
    def updates(self) -> int | None:
        """Number of finished updates; None if it was not saved."""
        history = self.state.get("optimizer_history") or [{}]
        return history[-1].get("num_updates")

    @property
    def best_score(self) -> float:
        """Best validation score of the run so far."""
        return float(self.state["extra_state"]["best"])


def read_checkpoint(path: str, names: Sequence[str] = MODELS_WITH_ENCODER, expected: str = FAIRSEQ_FILE) -> Checkpoint:
    """Read a checkpoint file without building its model.

    Args:
        path: path of the file.
        names: registered names of models, one of which it must be.
        expected: what the error message asks for when there is no file.

    Raises:
        InputError: no such file, not a checkpoint, or one of another model.
    """
    _check_exists(path, expected)
    with _loading(path):
        state = dict(checkpoint_utils.load_checkpoint_to_cpu(path))
        weights = state.pop("model")
        cfg: Any = OmegaConf.to_container(state["cfg"], resolve=True, enum_to_str=True)
        name = cfg["model"]["_name"]
    if name not in names:
        raise _other_model(path, name, names)
    return Checkpoint(path, name, weights, cfg, state)


def load_model(
    path: str,
    device: str = "cpu",
    names: Sequence[str] | None = ("bridle",),
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:
    """A checkpoint's model, in eval mode on a device, and its task.

    Args:
        path: path of the file.
        device: device of the model.
        names: registered names of models, one of which it must be; None: any model of fairseq.
        overrides: changes of the configuration, as fairseq takes them.

    Raises:
        InputError: no such file, not a checkpoint, or one of another model.
    """
    _check_exists(path, FAIRSEQ_FILE)
    bridle_fairseq.register()
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    with _loading(path):
        models, _, task = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides=overrides)
    model = models[0]
    if names is not None and not isinstance(model, tuple(MODEL_REGISTRY[name] for name in names)):
        expected = " or ".join(map(repr, names))
        raise InputError(f"{path}: a checkpoint of {type(model).__name__}; expected one of the model {expected}")
    return model.to(device).eval(), task


def read_bridle(path: str | None) -> tuple[BridleSettings, dict[str, Tensor]]:
    """Settings and weights in a checkpoint of the model ``bridle``.

    Raises:
        InputError: no path, no such file, not a checkpoint, or one of another model.
    """
    if not path:
        raise InputError("model.checkpoint is not set; expected the path of a checkpoint of the model 'bridle'")
    checkpoint = read_checkpoint(path, ("bridle",), "one of the model 'bridle'")
    return checkpoint.settings, checkpoint.weights


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Load weights from the checkpoint at ``path`` into a module: all of its weights and no others.

    Raises:
        InputError: weights are missing, unknown, or of other sizes than the checkpoint's settings.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit its settings ({_reason(error)})") from None


def load_tokenizer(module: CodeTokenizer, weights: Mapping[str, Tensor], path: str) -> None:
    """Load a checkpoint's weights into a :class:`CodeTokenizer`, with or without an estimator.

    Raises:
        InputError: as :func:`load_weights`, or the codebooks are not initialized yet.
    """
    ignored = ("encoder.", "decoder.", *(("estimator.",) if module.estimator is None else ()))
    load_weights(module, {name: value for name, value in weights.items() if not name.startswith(ignored)}, path)
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


def restored_state(cfg: Any) -> tuple[dict[str, Any], str | None]:
    """Task state and path of the checkpoint from which a run resumes; ({}, None) for a new run.

    fairseq restores the model, but not the task.

    Args:
        cfg: the task's configuration, within that of the run.
    """
    root = run_config(cfg)
    if "checkpoint" not in root:
        return {}, None
    path = root.checkpoint.restore_file
    if path == "checkpoint_last.pt":
        path = os.path.join(root.checkpoint.save_dir, path)
    if not os.path.isfile(path):
        return {}, None
    return torch.load(path, map_location="cpu", mmap=True).get("task_state") or {}, path


def write_untrained(checkpoint: str, path: str | os.PathLike[str], seed: int) -> str:
    """Write a checkpoint with the same settings and random weights, to train from scratch; its path.

    An existing file is kept.
    """
    from bridle_fairseq.inference.extractors import random_init_copy

    if not os.path.exists(path):
        state = torch.load(checkpoint, map_location="cpu")
        state["model"] = random_init_copy(load_model(checkpoint)[0], seed).state_dict()
        with atomic_binary(path) as file:
            torch.save(state, file)
    return os.fspath(path)


def _check_exists(path: str, expected: str) -> None:
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such checkpoint; expected {expected}")


@contextmanager
def _loading(path: str) -> Iterator[None]:
    """Report a file that is not a checkpoint."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # an invalid file can raise any exception
        raise InputError(f"{path}: not a checkpoint that fairseq can load ({_reason(error)})") from None


def _other_model(path: str, name: str, names: Sequence[str]) -> InputError:
    expected = " or ".join(map(repr, names))
    return InputError(f"{path}: a checkpoint of the model {name!r}; expected one of {expected}")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).split(". ")[0]
    return text[:160] or type(error).__name__
