"""The demo's pretraining: its stages and its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.training.launch import TrainingRun, override
from bridle_fairseq.utils.errors import InputError

# the tokenizer's share; a second iteration from a teacher of so few updates would cost accuracy
TOKENIZER_SHARE = 0.14
LEARNING_RATE = 1e-3
BATCH_SIZE, MASKS = 16, 2  # few clips, for many updates in little time; reading them costs more than a second mask
MASK_RATIO = 0.75


def stages(updates: int) -> list[Stage]:
    """The demo's stages; together they have about ``updates`` updates, each a multiple of 10.

    The encoder's are a multiple of the tokenizer's, so that a checkpoint is saved after the encoder stage.
    """
    tokenizer = max(10, 10 * round(TOKENIZER_SHARE * updates / 10))
    encoder = tokenizer * max(1, round(updates / tokenizer) - 1)
    return [
        Stage(kind, count, lr=LEARNING_RATE, warmup_updates=max(1, count // 10))
        for kind, count in (("encoder", encoder), ("tokenizer", tokenizer))
    ]


def pretraining(
    folder: Path,
    manifests: Path,
    statistics: Sequence[str],
    plan: Sequence[Stage],
    seed: int,
    overrides: Sequence[str],
    config_dir: Path,
) -> TrainingRun:
    """The run that pretrains the configuration ``tiny`` in these stages.

    Args:
        folder: for its files.
        manifests: folder of train.tsv and valid.tsv.
        statistics: mean and deviation of the input, as overrides.
        plan: the stages.
        seed: seed of the run.
        overrides: overrides of the modality.
        config_dir: folder of the modality's configurations.
    """
    total = sum(stage.updates for stage in plan)
    interval = plan[-1].updates
    listed = ",".join(
        f"{{kind:{s.kind},updates:{s.updates},lr:{s.lr},warmup_updates:{s.warmup_updates}}}" for s in plan
    )
    return TrainingRun(
        config_dir,
        "tiny",
        save_dir=folder / "checkpoints",
        hydra_dir=folder / "hydra",
        overrides=[
            override("task.data", manifests),
            *statistics,
            f"model.stages=[{listed}]",
            *overrides,
            f"dataset.batch_size={BATCH_SIZE}",
            f"model.num_masks={MASKS}",
            f"model.mask_ratio={MASK_RATIO}",
            f"common.seed={seed}",
            "common.log_format=json",
            f"common.log_interval={10 if total < 2000 else 50}",
            f"checkpoint.save_interval_updates={interval}",
            "checkpoint.keep_interval_updates=2",  # the last one, and that after the encoder stage
            f"dataset.validate_interval_updates={interval}",
        ],
        name="pretraining",
    )


def newest_checkpoint(folder: Path) -> str:
    """Path of the last checkpoint of a finished run.

    Raises:
        InputError: there is none.
    """
    path = folder / "checkpoints" / "checkpoint_last.pt"
    if not path.is_file():
        raise InputError(f"{path}: pretraining ended without a checkpoint; expected one")
    return str(path)


def checkpoint_after(folder: Path, updates: int) -> str | None:
    """Path of the checkpoint of a finished run after this many updates; None if it is not there."""
    found = sorted((folder / "checkpoints").glob(f"checkpoint_*_{updates}.pt"))
    return str(found[-1]) if found else None
