"""Configurations of examples/, composed as fairseq-hydra-train composes them."""

import functools
from pathlib import Path

import pytest
from fairseq.dataclass.initialize import hydra_init
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental import compose, initialize_config_dir
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@functools.cache
def composed(config: str, *overrides: str):
    modality, *kind, name = config.split("/")
    hydra_init(name)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(EXAMPLES.joinpath(modality, "config", *kind))):
            cfg = compose(name, overrides=list(overrides))
    finally:  # fairseq's schema of this configuration must not be merged into the next one's defaults
        del ConfigStore.instance().repo[f"{name}.yaml"]
    OmegaConf.set_readonly(cfg, True)
    return cfg


@pytest.fixture(scope="session")
def compose_config():
    """``compose_config("audio/pretraining/tiny", "+variant=vq")``: a composed configuration, read-only."""
    return composed
