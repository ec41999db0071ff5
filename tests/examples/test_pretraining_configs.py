"""The pretraining configurations: they compose, know no key that does not exist, and describe models that work."""

from __future__ import annotations

from dataclasses import Field, fields, replace
from pathlib import Path

import pytest
from fairseq.dataclass.initialize import hydra_init
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental import compose, initialize_config_dir

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.models.bridle import settings_from  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings, check_settings  # noqa: E402
from bridle_fairseq.tasks.bridle_pretraining import BridlePretrainingConfig  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(f"{path.parents[2].name}/{path.stem}" for path in EXAMPLES.glob("*/config/pretraining/*.yaml"))
MODALITIES = {"audio", "image", "video"}
NOT_WRITTEN = {"seed", "modality", "sample_rate"}  # which fairseq takes from other sections (the task has the last two)
NOT_WRITTEN |= {"num_mel_bins"}  # 128 in all of them
NOT_WRITTEN |= {"rand_augment", "rand_magnitude", "erase"}  # of fine-tuning


def is_for(setting: Field, modality: str) -> bool:
    """Whether a setting is for this modality: its help begins with those that it is for, if it is not for all."""
    listed, colon, _ = setting.metadata.get("help", "").partition(":")
    only = MODALITIES & set(listed.split(", ")) if colon else set()
    return not only or modality in only


def composed(name: str):
    """As fairseq-hydra-train composes it."""
    modality, name = name.split("/")
    hydra_init(name)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(EXAMPLES / modality / "config" / "pretraining")):
        return compose(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_exists_and_the_model_can_be_built(name) -> None:
    cfg = composed(name)
    assert cfg.task.modality == {"images": "image"}.get(name.split("/")[0], name.split("/")[0])
    check_settings(replace(settings_from(cfg.model), modality=cfg.task.modality))  # which fairseq fills in
    for section, kind in ((cfg.model, BridleSettings), (cfg.task, BridlePretrainingConfig)):
        assert set(section) - {f.name for f in fields(kind)} <= {"_name"}
        # What stands in the file can be set on the command line without a plus.
        assert {f.name for f in fields(kind) if is_for(f, cfg.task.modality)} - set(section) <= NOT_WRITTEN


@pytest.mark.parametrize("name", ["audio/base", "images/base", "video/base"])
def test_what_saves_arithmetic_is_not_in_the_papers_recipe(name) -> None:
    model = composed(name).model
    assert (model.num_masks, model.predict_share, model.decoder_kind, model.precision) == (
        1,
        1.0,
        "attention",
        "float32",
    )


@pytest.mark.parametrize("name", ["audio/tiny_fast", "audio/base_fast"])
def test_the_fast_recipe_changes_only_how_much_is_computed(name) -> None:
    fast, paper = composed(name).model, composed(name.removesuffix("_fast")).model
    changed = {key for key in paper if fast[key] != paper[key]}
    computed = {"mask_ratio", "predict_share", "decoder_kind", "decoder_depth", "decoder_window", "decoder_heads"}
    computed |= {"precision", "stages"}
    assert {"mask_ratio", "predict_share", "decoder_kind", "decoder_window"} <= changed | {"mask_ratio"} <= computed
    assert sum(stage.updates for stage in fast.stages) == sum(stage.updates for stage in paper.stages)
