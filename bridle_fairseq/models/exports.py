"""Training that starts from an export: ``checkpoint.finetune_from_model``."""

from __future__ import annotations

import logging
import os
from typing import Any

from torch import nn

from bridle_fairseq.exported.format import read_config, read_module
from bridle_fairseq.exported.source import EXPECTED, find_export
from bridle_fairseq.utils.errors import InputError

logger = logging.getLogger(__name__)
LAST = "checkpoint_last.pt"  # fairseq's default of checkpoint.restore_file


def start_from_export(model: nn.Module, root: Any) -> None:
    """Load the export that ``checkpoint.finetune_from_model`` names into the model of a new run.

    The setting is then removed from the configuration, as fairseq would read a checkpoint. Modules that the export
    lacks, such as the decoder, keep their initial weights. A checkpoint, and a run that goes on, are left to fairseq.

    Args:
        model: that was just built.
        root: configuration of the run; {} for a model without a run.

    Raises:
        InputError: there is no such export, or its weights do not fit the model.
    """
    source = root.checkpoint.finetune_from_model if "checkpoint" in root else None
    if not source or root.checkpoint.restore_file != LAST or getattr(root.checkpoint, "continue_once", None):
        return
    suffix = root.checkpoint.checkpoint_suffix or ""
    if os.path.lexists(os.path.join(root.checkpoint.save_dir, f"checkpoint_last{suffix}.pt")):
        return
    folder = find_export(source)
    if folder is None:
        if not os.path.lexists(source):
            raise InputError(f"checkpoint.finetune_from_model is {source}, which does not exist; expected {EXPECTED}")
        return
    config = read_config(folder)
    weights = read_module(folder, config).state_dict()
    if "tokenizer" not in config["parts"]:
        weights.pop("tokenizer_ready", None)  # of the tokenizer that was left out
    own = model.state_dict()
    for name, value in weights.items():
        if name not in own or own[name].shape != value.shape:
            here = f"has {list(own[name].shape)}" if name in own else "has none"
            raise InputError(
                f"checkpoint.finetune_from_model is {source}, with {name} of {list(value.shape)}, where this model "
                f"{here}; expected an export of a model with the same settings"
            )
    model.load_state_dict(weights, strict=False)
    begun = sorted({name.split(".")[0] for name in own if name not in weights})
    logger.info(f"loaded the export {source}; initial weights: {', '.join(begun) or 'none'}")
    root.checkpoint.finetune_from_model = None
