"""The one reader of checkpoints: whole models, and settings and weights of parts."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Dict, Optional, Tuple

from fairseq import checkpoint_utils
from torch import Tensor, nn

import bridle_fairseq
from bridle_fairseq.data.modality import modality_of
from bridle_fairseq.models.bridle import plain, settings_from
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.settings import BridleSettings, check_settings
from bridle_fairseq.utils.errors import InputError

# what a model of this name has and the others lack
PARTS = {
    "bridle": "quantizer",
    "bridle_classifier": "head",
    "bridle_ctc": "frame_head",
    "bridle_mel_decoder": "log_mel",
}
ENCODERS = ("bridle", "bridle_classifier", "bridle_ctc")  # what has an encoder, whose features can be taken


def load_model(path: str, device: str = "cpu", names: Sequence[str] = ("bridle",)) -> tuple[Any, Any]:
    """A checkpoint's model, in eval mode on a device, and its task.

    Args:
        path: of the checkpoint.
        device: where the model shall be.
        names: the registered names of which the model must have one.

    Raises:
        InputError: no such file, not a checkpoint, or of another model.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such checkpoint; expected a file that fairseq-hydra-train wrote")
    bridle_fairseq.register()
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    try:
        models, _, task = checkpoint_utils.load_model_ensemble_and_task([path])
    except InputError:
        raise
    except Exception as error:  # what is no checkpoint fails in any way there is
        reason = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise InputError(f"{path}: not a checkpoint that fairseq can load ({reason[:160]})") from None
    model = models[0]
    if not any(hasattr(model, PARTS[name]) for name in names):
        expected = " or ".join(map(repr, names))
        raise InputError(f"{path}: a checkpoint of {type(model).__name__}; expected one of the model {expected}")
    return model.to(device).eval(), task


def read_bridle(path: Optional[str]) -> Tuple[BridleSettings, Dict[str, Tensor]]:
    """The settings and the weights in a checkpoint of the model ``bridle``.

    Raises:
        InputError: no path, no such file, not a checkpoint, or one of another model.
    """
    if not path:
        raise InputError("model.checkpoint is not set; expected the path of a checkpoint of the model 'bridle'")
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such checkpoint; expected one of the model 'bridle'")
    try:
        state = checkpoint_utils.load_checkpoint_to_cpu(path)
        cfg, weights = state["cfg"].model, state["model"]
        name = cfg._name
    except Exception as error:  # what is no checkpoint fails in any way there is
        raise InputError(f"{path}: not a checkpoint that fairseq can load ({_reason(error)})") from None
    if name != "bridle":
        raise InputError(f"{path}: a checkpoint of the model {name!r}; expected one of 'bridle'")
    settings = settings_from(cfg)
    check_settings(settings)
    return settings, weights


def load_weights(module: nn.Module, weights: Dict[str, Tensor], path: str) -> None:
    """Load weights from the checkpoint at ``path`` into a module; all of them, and no others.

    Raises:
        InputError: weights are missing, or of other sizes than the checkpoint's settings say.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit its settings ({_reason(error)})") from None


def load_tokenizer(module: Bridle, weights: Dict[str, Tensor], path: str) -> None:
    """Load the parts of a checkpoint that a :func:`tokenizer_alone` has, which may lack the estimator too.

    Raises:
        InputError: as :func:`load_weights`, or its codebooks have not been started.
    """
    missing = tuple(f"{name}." for name in ("encoder", "decoder", "estimator") if getattr(module, name) is None)
    load_weights(module, {name: value for name, value in weights.items() if not name.startswith(missing)}, path)
    if not module.quantizer.started:
        raise InputError(f"{path}: its codebooks have not been started; expected a checkpoint with some updates")


def tuned_settings(cfg, task) -> Tuple[BridleSettings, Optional[Dict[str, Tensor]]]:
    """The settings of a model that fine-tunes ``cfg.checkpoint``, and that file's weights.

    With ``cfg.settings``, which a run has written, they are those, and weights are None: they are loaded afterwards.

    Raises:
        InputError: the checkpoint cannot be used, or is of another modality or sample rate than the task's.
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


def load_encoder(encoder: nn.Module, weights: Optional[Dict[str, Tensor]], path: str) -> None:
    """:func:`load_weights` of the encoder among them; nothing for None.

    Raises:
        InputError: as :func:`load_weights`.
    """
    if weights is not None:
        part = {name[len("encoder.") :]: value for name, value in weights.items() if name.startswith("encoder.")}
        load_weights(encoder, part, path)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).split(". ")[0]
    return text[:160] or type(error).__name__
