"""The pretraining configurations: every key exists, and every model can be built."""

from __future__ import annotations

from dataclasses import Field, fields, replace
from pathlib import Path

import pytest

from bridle_fairseq.models.bridle import settings_from
from bridle_fairseq.nn.settings import BridleSettings, check_settings
from bridle_fairseq.tasks.bridle_pretraining import BridlePretrainingConfig

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CONFIGS = sorted(
    f"{path.parents[2].name}/pretraining/{path.stem}" for path in EXAMPLES.glob("*/config/pretraining/*.yaml")
)
MODALITIES = {"audio", "image", "video"}
NOT_WRITTEN = {"seed", "modality", "sample_rate"}  # taken from other sections of the configuration
NOT_WRITTEN |= {"num_mel_bins"}  # 128 everywhere
NOT_WRITTEN |= {"rand_augment", "rand_magnitude", "erase"}  # for fine-tuning


def applies_to(setting: Field, modality: str) -> bool:
    """Whether a setting is for this modality: if it is not for all, its help begins with those that it is for."""
    listed, colon, _ = setting.metadata.get("help", "").partition(":")
    only = MODALITIES & set(listed.split(", ")) if colon else set()
    return not only or modality in only


@pytest.mark.parametrize("config", CONFIGS)
def test_every_key_exists_and_the_settings_are_valid(config, compose_config) -> None:
    cfg = compose_config(config)
    modality = cfg.task.modality
    assert modality == {"images": "image"}.get(config.split("/")[0], config.split("/")[0])
    check_settings(replace(settings_from(cfg.model), modality=modality))  # fairseq copies it from the task
    for section, kind in ((cfg.model, BridleSettings), (cfg.task, BridlePretrainingConfig)):
        assert set(section) - {f.name for f in fields(kind)} <= {"_name"}
        # Keys that are in the file can be set on the command line without a plus.
        assert {f.name for f in fields(kind) if applies_to(f, modality)} - set(section) <= NOT_WRITTEN


@pytest.mark.parametrize("modality", ["audio", "images", "video"])
def test_base_has_no_cost_saving_options(modality, compose_config) -> None:
    model = compose_config(f"{modality}/pretraining/base").model
    options = (model.num_masks, model.predict_share, model.decoder_kind, model.precision)
    assert options == (1, 1.0, "attention", "float32")


def test_fast_recipe_changes_cost_only(compose_config) -> None:
    fast, full = (compose_config(f"audio/pretraining/{name}").model for name in ("base_fast", "base"))
    changed = {key for key in full if fast[key] != full[key]}
    of_cost = {"mask_ratio", "predict_share", "decoder_kind", "decoder_depth", "decoder_window", "decoder_heads"}
    assert {"predict_share", "decoder_kind", "decoder_window"} <= changed <= of_cost | {"precision"}
    tiny, small = (compose_config(f"audio/pretraining/{name}").model for name in ("tiny", "small"))
    for name in ("mask_ratio", "predict_share", "decoder_kind"):  # what base_fast saves, tiny and small save too
        assert fast[name] == tiny[name] == small[name]


def test_earlier_name_of_tiny(compose_config) -> None:
    assert compose_config("audio/pretraining/tiny_fast") == compose_config("audio/pretraining/tiny")
