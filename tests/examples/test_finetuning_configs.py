"""The fine-tuning configurations: every key exists, and the values are those of the method's tables."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim.lr_scheduler.cosine_lr_scheduler import CosineLRScheduleConfig
from omegaconf import OmegaConf

from bridle_fairseq.criterions.bridle_classification import BridleClassificationCriterionConfig
from bridle_fairseq.criterions.bridle_ctc import BridleCtcCriterionConfig
from bridle_fairseq.models.bridle_classifier import BridleClassifierConfig
from bridle_fairseq.models.bridle_ctc import BridleCtcConfig
from bridle_fairseq.nn.pretrained_encoder import ClassifierRegularization, check_classifier
from bridle_fairseq.optim.bridle_adamw import BridleAdamWConfig
from bridle_fairseq.tasks.base import AudioOptions, ImageOptions, VideoOptions
from bridle_fairseq.tasks.bridle_classification import BridleClassificationConfig, BridleClassificationTask
from bridle_fairseq.tasks.bridle_ctc import BridleCtcTask, BridleCtcTaskConfig

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SPEECH = "speech/"
NAMES = sorted(f"{path.parents[2].name}/{path.stem}" for path in EXAMPLES.glob("*/config/finetuning/*.yaml"))
AUDIO_ONLY = {f.name for f in fields(AudioOptions)} | {"fbank_mean", "fbank_std", "mask_time", "mask_frequency"}
AUDIO_ONLY |= {"spec_augment_mel_bins", "spec_augment_frames", "warp_frequency", "warp_time", "noise"}
VIDEO_ONLY = {f.name for f in fields(VideoOptions)}
OTHER_MODALITIES = {  # settings of task and model that do not apply
    "audio": {f.name for f in fields(ImageOptions)} | VIDEO_ONLY | {"pixel_mean", "pixel_std", "cutmix"},
    "images": AUDIO_ONLY | VIDEO_ONLY,
    "video": AUDIO_ONLY,
    "speech": set(),
}


def section_types(name: str) -> dict[str, type]:
    """Section of this configuration -> dataclass of its settings; the first three are this package's."""
    if name.startswith(SPEECH):
        own = {"task": BridleCtcTaskConfig, "model": BridleCtcConfig, "criterion": BridleCtcCriterionConfig}
    else:
        own = {"task": BridleClassificationConfig, "model": BridleClassifierConfig}
        own["criterion"] = BridleClassificationCriterionConfig
    return {**own, "optimizer": BridleAdamWConfig, "lr_scheduler": CosineLRScheduleConfig}


@pytest.fixture
def composed(compose_config):
    """``composed("audio/tiny", "+probe=...")``: a fine-tuning configuration."""
    return lambda name, *overrides: compose_config(name.replace("/", "/finetuning/"), *overrides)


def test_list_of_configurations() -> None:
    audio = [f"audio/{name}" for name in ("audioset_20k", "audioset_2m", "esc50", "small", "speech_commands", "tiny")]
    speech = [f"speech/{name}" for name in ("librispeech_100h", "librispeech_10h", "tiny")]
    images, video = (
        ("images/imagenet", "images/small", "images/tiny"),
        ("video/kinetics", "video/small", "video/tiny"),
    )
    assert NAMES == [*audio, *images, *speech, *video]


@pytest.mark.parametrize("name", NAMES)
def test_every_key_exists(name, composed) -> None:
    cfg, kinds = composed(name), section_types(name)
    sections = {field.name: field.default_factory for field in fields(FairseqConfig) if field.name not in kinds}
    for section, kind in kinds.items():
        known = {field.name for field in fields(kind)} | {"_name"}
        assert set(cfg[section]) - known == set(), section
    for section in set(cfg) - set(kinds):
        assert section in sections, section
    # Keys that are in the file can be set on the command line without a plus.
    written = OmegaConf.to_container(cfg)
    for section, kind in list(kinds.items())[:3]:
        own = {f.name for f in fields(kind)} - {"_name", "settings", "seed"} - OTHER_MODALITIES[name.split("/")[0]]
        assert own - set(written[section]) == set(), section


@pytest.mark.parametrize("name", NAMES)
def test_task_accepts_the_configuration(name, composed) -> None:
    task = BridleCtcTask if name.startswith(SPEECH) else BridleClassificationTask
    task.complete(composed(name))


TABLE = {  # lr, clips per update, epochs, epochs of warm-up, updates per epoch
    "images/imagenet": (5e-4, 1024, 200, 5, 1251),
    "video/kinetics": (7.5e-4, 384, 75, 5, 625),
    "audio/audioset_2m": (2e-4, 256, 200, 10, 782),
    "audio/audioset_20k": (4e-4, 256, 150, 10, 87),
    "audio/esc50": (2e-3, 64, 300, 20, 25),
}


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(("/tiny", "/small"))])
def test_settings_are_those_of_the_method(name, composed) -> None:
    cfg = composed(name)
    model = cfg.model
    assert (model.layer_decay, model.drop_path, cfg.optimizer.weight_decay) == (0.75, 0.1, 5e-4)
    if name.startswith(("audio/", SPEECH)):
        assert (model.spec_augment_mel_bins, model.spec_augment_frames) == (48, 192)
    if name.startswith(SPEECH):
        return  # the method's tables have no more for transcripts
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
def test_ctc_frames_are_20_ms_and_clips_are_whole(name, composed, compose_config) -> None:
    cfg = composed(name)
    assert (cfg.task.labels, cfg.model.pooling, cfg.checkpoint.best_checkpoint_metric) == ("ltr", "frequency", "wer")
    assert cfg.lr_scheduler.warmup_updates * 10 == cfg.optimization.max_update
    base = name != "speech/tiny"
    pretraining = compose_config("audio/pretraining/base" if base else "audio/pretraining/tiny")
    assert pretraining.model.patch_size[0] * 10 / cfg.model.upsample == 20  # ms
    assert cfg.task.max_sample_size == 16000 * (25 if base else 20)
    if base:  # a batch has 200 s
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
def test_linear_probe_schedules(name, lr, updates, composed) -> None:
    cfg = composed(name, f"+probe={name.split('/')[1]}")
    assert cfg.model.freeze_encoder and cfg.optimization.lr == [lr] and cfg.optimization.max_update == updates
    chosen = {
        field.name: cfg.model[field.name] for field in fields(ClassifierRegularization) if field.name in cfg.model
    }
    check_classifier(ClassifierRegularization(**chosen), cfg.model.pooling, True)


PROBES = sorted(f"{path.parents[3].name}/{path.stem}" for path in EXAMPLES.glob("*/config/finetuning/probe/*.yaml"))


@pytest.mark.parametrize("name", PROBES)
def test_linear_probes_do_not_augment(name, composed) -> None:
    """Except for crops and flips and, as in the method's table for audio, mixup and SpecAugment."""
    cfg = composed(name, f"+probe={name.split('/')[1]}")
    off = {"task": ["rand_augment", "erase"], "criterion": ["cutmix", "label_smoothing"], "model": ["drop_path"]}
    if name.startswith("audio/"):
        off["model"] += ["mask_time", "mask_frequency"]
    else:
        off["criterion"] += ["mixup"]
    values = {f"{section}.{key}": cfg[section].get(key, 0) for section, keys in off.items() for key in keys}
    assert len(values) >= 6 and not any(values.values()), values
