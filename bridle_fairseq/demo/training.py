"""The demo's pretraining: stock fairseq-hydra-train in a process of its own, with its progress as a bar."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bridle_fairseq.training import log
from bridle_fairseq.utils.errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent
EXAMPLES = PACKAGE.parent / "examples"
CONFIGS = EXAMPLES / "audio" / "config" / "pretraining"


class Stage(NamedTuple):
    """A stage of the demo's run."""

    kind: str
    updates: int
    lr: float
    warmup_updates: int


# What the updates are spent on: a good teacher first, then one turn of tokenizer and encoder.
SHARES = (("encoder", 0.7), ("tokenizer", 0.1), ("encoder", 0.2))
LEARNING_RATE = 1e-3
BATCH_SIZE = 16  # small, for many updates in little time
MASK_RATIO = 0.75


def stages(updates: int) -> list[Stage]:
    """The demo's stages; together they have about ``updates`` updates, each a multiple of 10."""
    rounded = [max(10, 10 * round(share * updates / 10)) for _, share in SHARES]
    return [
        Stage(kind, count, LEARNING_RATE, max(1, count // 10)) for (kind, _), count in zip(SHARES, rounded, strict=True)
    ]


def find_script() -> str:
    """fairseq-hydra-train of this environment.

    Raises:
        InputError: it is not there.
    """
    beside = Path(sys.executable).with_name("fairseq-hydra-train")
    found = str(beside) if beside.exists() else shutil.which("fairseq-hydra-train")
    if found is None:
        raise InputError(
            "fairseq-hydra-train was not found; expected it beside this Python: install bridle_fairseq there"
        )
    if not CONFIGS.is_dir():
        raise InputError(f"{CONFIGS}: no such folder; expected the configurations of a checkout (pip install -e .)")
    return found


def common_overrides(manifests: Path, statistics: Sequence[str]) -> list[str]:
    """What any training on these manifests needs, whatever its configuration."""
    overrides = [f"common.user_dir={PACKAGE}", f"task.data={manifests}", *statistics]
    if not _has_gpu():
        overrides.append("common.cpu=true")
    return overrides


def command(
    folder: Path,
    manifests: Path,
    statistics: Sequence[str],
    plan: Sequence[Stage],
    seed: int,
    overrides: Sequence[str],
    configs: Path = CONFIGS,
) -> list[str]:
    """The command that pretrains ``tiny`` in these stages; a run that was killed goes on where it was saved last."""
    total = sum(stage.updates for stage in plan)
    often = max(10, total // 5)
    listed = ",".join(
        f"{{kind:{s.kind},updates:{s.updates},lr:{s.lr},warmup_updates:{s.warmup_updates}}}" for s in plan
    )
    return [
        find_script(),
        *("--config-dir", str(configs), "--config-name", "tiny"),
        *common_overrides(manifests, statistics),
        f"model.stages=[{listed}]",
        *overrides,
        f"dataset.batch_size={BATCH_SIZE}",
        f"model.mask_ratio={MASK_RATIO}",
        f"common.seed={seed}",
        "common.log_format=json",
        f"common.log_interval={10 if total < 2000 else 50}",
        f"checkpoint.save_dir={folder / 'checkpoints'}",
        f"checkpoint.save_interval_updates={often}",
        f"dataset.validate_interval_updates={often}",
        f"hydra.run.dir={folder / 'hydra'}",
    ]


def train(arguments: Sequence[str], log_path: Path, total_updates: int) -> list[log.Record]:
    """Run the command to its end, with a bar of its updates; what it prints goes to ``log_path``.

    Raises:
        InputError: it failed; says why and where all that it printed is.
    """
    from tqdm import tqdm

    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert process.stdout is not None
    interactive = sys.stderr.isatty()
    bar = tqdm(total=total_updates, unit=" updates", desc="pretraining", mininterval=0.2 if interactive else 20.0)
    try:
        with bar, open(log_path, "a", encoding="utf-8") as file:
            for line in process.stdout:
                file.write(line)
                file.flush()
                record = log.parse_line(line)
                if record is not None and record.split == "train":
                    bar.set_postfix_str(_progress(record), refresh=False)
                    bar.update(record.update - bar.n)
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    lines = log_path.read_text(encoding="utf-8").splitlines()
    if code != 0:
        raise InputError(f"pretraining failed: {log.last_error(lines)} (all that it printed: {log_path})")
    return log.parse(lines)


def _progress(record: log.Record) -> str:
    shown = {"loss": "loss", "acc_1": "accuracy", "cosine": "cosine"}
    values = [f"{text} {record.values[name]:.3g}" for name, text in shown.items() if name in record.values]
    return ", ".join([f"stage {int(record.values.get('stage', 0)) + 1}", *values])


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def newest_checkpoint(folder: Path) -> str:
    """The checkpoint with which a finished run ended.

    Raises:
        InputError: there is none.
    """
    path = folder / "checkpoints" / "checkpoint_last.pt"
    if not os.path.isfile(path):
        raise InputError(f"{path}: pretraining ended without a checkpoint; expected one")
    return str(path)
