"""The model settings of a pretraining configuration, composed as fairseq-hydra-train composes them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fairseq.dataclass.initialize import hydra_init
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental import compose, initialize_config_dir
from omegaconf import OmegaConf
from runs import EXAMPLES

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402


def model_settings(name: str) -> dict[str, Any]:
    """The model settings of a configuration of examples/audio such as ``base``, without the stages."""
    hydra_init(name)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(EXAMPLES / "audio" / "config" / "pretraining")):
        model = OmegaConf.to_container(compose(name).model)
    names = {field.name for field in fields(BridleSettings)} - {"stages"}
    return {key: value for key, value in model.items() if key in names}
