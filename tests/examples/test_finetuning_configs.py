"""The fine-tuning configurations: they compose, know no key that does not exist, and say what METHOD's tables say."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from fairseq.dataclass.initialize import hydra_init
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental import compose, initialize_config_dir
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from fairseq.dataclass.configs import FairseqConfig  # noqa: E402
from fairseq.optim.lr_scheduler.cosine_lr_scheduler import CosineLRScheduleConfig  # noqa: E402

from bridle_fairseq.criterions.bridle_classification import BridleClassificationCriterionConfig  # noqa: E402
from bridle_fairseq.criterions.bridle_ctc import BridleCtcCriterionConfig  # noqa: E402
from bridle_fairseq.models.bridle_classifier import BridleClassifierConfig  # noqa: E402
from bridle_fairseq.models.bridle_ctc import BridleCtcConfig as BridleCtcModelConfig  # noqa: E402
from bridle_fairseq.nn.pretrained_encoder import FineTuning, check_finetuning  # noqa: E402
from bridle_fairseq.optim.bridle_adamw import BridleAdamWConfig  # noqa: E402
from bridle_fairseq.tasks.base import AudioOptions, ImageOptions, VideoOptions  # noqa: E402
from bridle_fairseq.tasks.bridle_classification import BridleClassificationConfig, BridleClassificationTask  # noqa: E402
from bridle_fairseq.tasks.bridle_ctc import BridleCtcConfig, BridleCtcTask  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SPEECH = "speech/"
NAMES = sorted(f"{path.parents[2].name}/{path.stem}" for path in EXAMPLES.glob("*/config/finetuning/*.yaml"))
OF_SOUND = {f.name for f in fields(AudioOptions)} | {"fbank_mean", "fbank_std", "mask_time", "mask_frequency"}
OF_SOUND |= {"spec_augment_mel_bins", "spec_augment_frames"}
OF_CLIPS = {f.name for f in fields(VideoOptions)}
OF_ANOTHER = {  # settings of task and model that are for other modalities
    "audio": {f.name for f in fields(ImageOptions)} | OF_CLIPS | {"pixel_mean", "pixel_std", "cutmix"},
    "images": OF_SOUND | OF_CLIPS,
    "video": OF_SOUND,
    "speech": set(),
}


def of_a_section(name: str) -> dict[str, type]:
    """The settings that a section of this configuration may have; the first three are our own."""
    if name.startswith(SPEECH):
        own = {"task": BridleCtcConfig, "model": BridleCtcModelConfig, "criterion": BridleCtcCriterionConfig}
    else:
        own = {"task": BridleClassificationConfig, "model": BridleClassifierConfig}
        own["criterion"] = BridleClassificationCriterionConfig
    return {**own, "optimizer": BridleAdamWConfig, "lr_scheduler": CosineLRScheduleConfig}


def composed(name: str, *overrides: str):
    """As fairseq-hydra-train composes it."""
    modality, name = name.split("/")
    hydra_init(name)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(EXAMPLES / modality / "config" / "finetuning")):
        return compose(name, overrides=list(overrides))


def test_the_configurations_are_there() -> None:
    audio = [f"audio/{name}" for name in ("audioset_20k", "audioset_2m", "esc50", "speech_commands", "tiny")]
    speech = [f"speech/{name}" for name in ("librispeech_100h", "librispeech_10h", "tiny")]
    assert NAMES == [*audio, "images/imagenet", "images/tiny", *speech, "video/kinetics", "video/tiny"]


@pytest.mark.parametrize("name", NAMES)
def test_every_key_exists(name) -> None:
    cfg, kinds = composed(name), of_a_section(name)
    sections = {field.name: field.default_factory for field in fields(FairseqConfig) if field.name not in kinds}
    for section, kind in kinds.items():
        known = {field.name for field in fields(kind)} | {"_name"}
        assert set(cfg[section]) - known == set(), section
    for section in set(cfg) - set(kinds):
        assert section in sections, section
    # What only the task's and the model's own keys could name must stand in the file to be set on the command line.
    written = OmegaConf.to_container(cfg)
    for section, kind in list(kinds.items())[:3]:
        own = {f.name for f in fields(kind)} - {"_name", "settings", "seed"} - OF_ANOTHER[name.split("/")[0]]
        assert own - set(written[section]) == set(), section


@pytest.mark.parametrize("name", NAMES)
def test_the_task_takes_it(name) -> None:
    task = BridleCtcTask if name.startswith(SPEECH) else BridleClassificationTask
    task.complete(composed(name))


TABLE = {  # lr, clips an update, epochs, epochs of warm-up, updates of an epoch
    "images/imagenet": (5e-4, 1024, 200, 5, 1251),
    "video/kinetics": (7.5e-4, 384, 75, 5, 625),
    "audio/audioset_2m": (2e-4, 256, 200, 10, 782),
    "audio/audioset_20k": (4e-4, 256, 150, 10, 87),
    "audio/esc50": (2e-3, 64, 300, 20, 25),
}


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("/tiny")])
def test_the_settings_of_the_method(name) -> None:
    cfg = composed(name)
    model = cfg.model
    assert (model.layer_decay, model.drop_path, cfg.optimizer.weight_decay) == (0.75, 0.1, 5e-4)
    if name.startswith(("audio/", SPEECH)):
        assert (model.spec_augment_mel_bins, model.spec_augment_frames) == (48, 192)
    if name.startswith(SPEECH):
        return  # the method's tables say no more of transcripts
    assert (model.pooling, cfg.criterion.mixup) == ("mean", 0.5)
    if name.startswith("audio/"):
        assert (model.mask_time, model.mask_frequency) == (0.2, 0.2)
    if name in TABLE:
        lr, clips, epochs, warmup, updates = TABLE[name]
        assert cfg.optimization.lr == [lr] and cfg.dataset.batch_size * cfg.optimization.update_freq[0] == clips
        assert (cfg.optimization.max_update, cfg.lr_scheduler.warmup_updates) == (epochs * updates, warmup * updates)
    assert cfg.task.multi_label == name.startswith("audio/audioset")
    assert (cfg.task.weighted_sampling, cfg.task.samples_per_epoch) == (
        (True, 200000) if name == "audio/audioset_2m" else (False, None)
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(SPEECH)])
def test_transcripts_are_of_whole_clips_and_letters_fit_into_frames(name) -> None:
    cfg = composed(name)
    assert (cfg.task.labels, cfg.model.pooling, cfg.checkpoint.best_checkpoint_metric) == ("ltr", "frequency", "wer")
    assert cfg.lr_scheduler.warmup_updates * 10 == cfg.optimization.max_update
    base = name != "speech/tiny"
    pretraining = EXAMPLES / "audio" / "config" / "pretraining" / ("base.yaml" if base else "tiny.yaml")
    assert OmegaConf.load(pretraining).model.patch_size[0] * 10 / cfg.model.upsample == 20  # milliseconds
    assert cfg.task.max_sample_size == 16000 * (25 if base else 20)
    if base:  # a batch is about 200 s
        assert cfg.dataset.batch_size is None and cfg.dataset.max_tokens == cfg.dataset.max_tokens_valid == 200 * 16000


@pytest.mark.parametrize(
    ("name", "lr", "updates"),
    [
        ("audio/audioset_2m", 4e-3, 250 * 782),
        ("audio/audioset_20k", 5e-3, 300 * 87),
        ("images/imagenet", 8e-3, 200 * 5004),  # of 256 images
        ("video/kinetics", 8e-3, 200 * 938),  # of 256 files
    ],
)
def test_linear_probes(name, lr, updates) -> None:
    cfg = composed(name, f"+probe={name.split('/')[1]}")
    assert cfg.model.freeze_encoder and cfg.optimization.lr == [lr] and cfg.optimization.max_update == updates
    chosen = {field.name: cfg.model[field.name] for field in fields(FineTuning) if field.name in cfg.model}
    check_finetuning(FineTuning(**chosen), cfg.model.pooling, True)


PROBES = sorted(f"{path.parents[3].name}/{path.stem}" for path in EXAMPLES.glob("*/config/finetuning/probe/*.yaml"))


@pytest.mark.parametrize("name", PROBES)
def test_a_linear_probe_sees_clips_as_they_are(name) -> None:
    """But for crops and what the method's table has for sound: mixup and SpecAugment."""
    cfg = composed(name, f"+probe={name.split('/')[1]}")
    off = {"task": ["rand_augment", "erase"], "criterion": ["cutmix", "label_smoothing"], "model": ["drop_path"]}
    if name.startswith("audio/"):
        off["model"] += ["mask_time", "mask_frequency"]
    else:
        off["criterion"] += ["mixup"]
    left = {f"{part}.{key}": cfg[part].get(key, 0) for part, keys in off.items() for key in keys}
    assert len(left) >= 6 and not any(left.values()), left
