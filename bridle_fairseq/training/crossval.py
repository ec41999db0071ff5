"""The folds of a cross-validation, one after the other, and what they come to together.

A fold's result is ``fold{name}/result.json``, written last: a fold that has it is not done again. With ``{fold}`` in
the checkpoint's path each fold has its own, pretrained without the clips that test it; of which one a fold's files are
stands in ``fold{name}/begun.json``, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.features import FeatureArray, Features
from bridle_fairseq.data.manifests.labels import Classes
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.evaluation.probe import Split
from bridle_fairseq.evaluation.probe_table import Row, aligned, compare, finite_rows, write
from bridle_fairseq.prepare.folds import Fold
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text

POOLINGS = ("mean", "frequency")
CHOSEN = "what validates best"


class Job(NamedTuple):
    """A cross-validation."""

    args: argparse.Namespace  # of the command
    out: Path
    classes: Classes
    labels: np.ndarray  # class number of each row of all.tsv; or rows x classes of 0 and 1, any number of them a row
    folds: Sequence[Fold]
    device: str

    @property
    def metric(self) -> str:
        """What is reported of a fold."""
        return "mAP" if self.labels.ndim == 2 else "accuracy"

    def checkpoint(self, fold: Fold) -> str:
        """Path of the fold's checkpoint; empty where none is needed."""
        return checkpoint_of(self.args.checkpoint or "", fold.name)


class Result(NamedTuple):
    """One line of a fold's table."""

    name: str
    valid: float
    test: float


def checkpoint_of(path: str, fold: str) -> str:
    """The fold's own path, where ``{fold}`` stands for it."""
    return path.replace("{fold}", fold)


def keep_to_checkpoints(out: Path, checkpoint: str, folds: Sequence[Fold], overwrite: bool) -> None:
    """See that what is there of the folds is of the checkpoints that they have now.

    Args:
        out: folder of the folds' folders.
        checkpoint: path, perhaps with ``{fold}``; empty where none is needed.
        folds: those that are to be done.
        overwrite: throw away what is of others.

    Raises:
        InputError: a fold was begun with another one, or its result cannot be read.
    """
    for fold in folds:
        folder, about = out / f"fold{fold.name}", _about(fold, checkpoint_of(checkpoint, fold.name))
        for path in (folder / "result.json", folder / "begun.json"):
            found = _stored(path) if path.exists() else about
            if all(found.get(name) == value for name, value in about.items()):
                continue
            if not overwrite:
                raise InputError(
                    f"{path}: a result of another checkpoint than the fold has now; expected the same: choose another "
                    "--out, or throw results away with --overwrite"
                )
            shutil.rmtree(folder)


def _about(fold: Fold, checkpoint: str) -> dict[str, str]:
    from bridle_fairseq.utils.files import file_sha256

    return {"fold": fold.name, "checkpoint_sha256": file_sha256(checkpoint) if checkpoint else ""}


def run_fold_by_fold(job: Job) -> dict[str, list[Result]]:
    """Results by fold; those that are there already (:func:`keep_to_checkpoints`) are read."""
    found: dict[str, list[Result]] = {}
    features: dict[FeatureArray, np.ndarray] = {}
    made_with = None
    for fold in job.folds:
        folder, checkpoint = job.out / f"fold{fold.name}", job.checkpoint(fold)
        if not (folder / "result.json").exists():
            about = _about(fold, checkpoint)
            with atomic_text(folder / "begun.json") as file:
                json.dump(about, file)
            if job.args.mode == "finetune":
                rows = [_finetune(job, checkpoint, folder)]
            else:
                if checkpoint != made_with:
                    features, made_with = _features(job, fold), checkpoint
                rows = _probe(job, fold, features)
            write(rows, about, folder, "result")
        found[fold.name] = _read(folder / "result.json")
        best = max(found[fold.name], key=lambda result: result.valid)
        print(f"fold {fold.name}: {best.test:.3f} ({best.name})", flush=True)
    return found


def _stored(path: Path) -> dict[str, Any]:
    """What a fold's file says.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot read this result ({error!r}); remove it to do the fold again")


def _read(path: Path) -> list[Result]:
    """A fold's results.

    Raises:
        InputError: they cannot be read.
    """
    try:
        return [
            Result(_name(row["features"], row["pooling"], row["probe"]), row["valid"], row["test"])
            for row in _stored(path)["rows"]
        ]
    except (KeyError, TypeError) as error:
        raise _unreadable(path, error) from None


def _name(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _probe(job: Job, fold: Fold, features: Mapping[FeatureArray, np.ndarray]) -> list[Row]:
    readable = finite_rows(features)
    rows = [part[readable[part]] for part in (fold.train, fold.valid, fold.test)]
    labels = Split(*(job.labels[part] for part in rows))
    splits = {array: Split(*(values[part] for part in rows)) for array, values in features.items()}
    return compare(splits, labels, refit=True, seed=job.args.seed)


def _features(job: Job, fold: Fold) -> dict[FeatureArray, np.ndarray]:
    """Features of all clips by the fold's checkpoint, made once for all folds that share it, resumed where left."""
    from bridle_fairseq.cli.features import choose_chunking, choose_layers, describe, make_features
    from bridle_fairseq.data.artifacts.features import FeaturesJob
    from bridle_fairseq.inference.extractors import EncoderFeatures, LogMelFeatures, untrained_twin
    from bridle_fairseq.models.checkpoints import ENCODERS, load_model
    from bridle_fairseq.nn.frontend import AudioFrontEnd
    from bridle_fairseq.nn.settings import BridleSettings
    from bridle_fairseq.utils.files import file_sha256

    args, task, sha256, checkpoint = job.args, None, "", job.checkpoint(fold)
    if args.mode == "logmel":
        front_end = AudioFrontEnd(BridleSettings())
        extractor: Any = LogMelFeatures(front_end)
    else:
        model, task = load_model(checkpoint, job.device, ENCODERS)
        layers, source = choose_layers(args.layers, model.encoder.depth), "untrained" if args.untrained else "encoder"
        model = untrained_twin(model, args.seed) if args.untrained else model
        front_end, sha256 = model.front_end, file_sha256(checkpoint)
        extractor = EncoderFeatures(model, layers, POOLINGS, source)
    chunking = choose_chunking(args, front_end, task)
    manifest = Manifest.read(job.out / "all.tsv")
    info = describe(extractor.arrays, chunking, "float32", sha256, manifest)
    # The settings of this folder have been checked: what else is there is of no use any more.
    shared = checkpoint == (args.checkpoint or "")
    folder = job.out if shared else job.out / f"fold{fold.name}"
    features = FeaturesJob(folder / "all.features", info, manifest, overwrite=True)
    if not features.finished():
        make_features(args, features, features.missing(), chunking, [extractor], job.device, "features")
        features.join()
    stored = Features(features.prefix, manifest)
    return {array: stored[array.name] for array in info.arrays}


def _finetune(job: Job, checkpoint: str, folder: Path) -> Row:
    from bridle_fairseq.models.checkpoints import load_model
    from bridle_fairseq.training.launch import (
        FINETUNING_CONFIGS,
        MULTI_LABEL,
        FineTuningRun,
        score_split,
        write_untrained,
    )

    args = job.args
    load_model(checkpoint)  # a checkpoint that cannot be used is found before anything is trained
    checkpoint = str(Path(checkpoint).absolute())
    if args.untrained:
        checkpoint = write_untrained(checkpoint, folder / "untrained.pt", args.seed)
    configs = Path(args.config_dir).absolute() if args.config_dir else FINETUNING_CONFIGS
    if not (configs / f"{args.config_name}.yaml").is_file():
        raise InputError(f"{configs / args.config_name}.yaml: no such file; expected a configuration for --config-name")
    print(f"{folder.name}: fine-tuning, log in {folder / 'train.log'}", flush=True)
    overrides = [*(MULTI_LABEL if job.metric == "mAP" else ()), *args.overrides]
    best = FineTuningRun(checkpoint, folder, folder, configs, args.config_name, overrides).train()
    test, valid = score_split(best, folder, "test", args.batch_size, job.device)
    return Row("from scratch" if args.untrained else "fine-tuned", "", "", 0, {}, valid, test, None, {})


def summarise(
    results: Mapping[str, Sequence[Result]], out: Path, settings: Mapping[str, Any], metric: str = "accuracy"
) -> str:
    """``crossval.json`` and ``crossval.csv`` in ``out``, and the table: the score of each fold, mean and deviation."""
    by_name: dict[str, list[float]] = {}
    for of_fold in results.values():
        for result in of_fold:
            by_name.setdefault(result.name, []).append(result.test)
    if len(by_name) > 1:
        by_name[CHOSEN] = [max(of_fold, key=lambda r: r.valid).test for of_fold in results.values()]
    lines = [
        {"name": name, "folds": values, "mean": mean(values), "std": stdev(values) if len(values) > 1 else 0.0}
        for name, values in by_name.items()
    ]
    with atomic_text(out / "crossval.json") as file:
        json.dump({"settings": dict(settings), "metric": metric, "folds": list(results), "rows": lines}, file, indent=2)
        file.write("\n")
    with atomic_text(out / "crossval.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", *(f"fold {name}" for name in results), "mean", "std"])
        writer.writerows([line["name"], *line["folds"], line["mean"], line["std"]] for line in lines)
    cells = [[f"test {metric}", *(f"fold {name}" for name in results), "mean", "std"]]
    for line in lines:
        cells.append([line["name"], *(f"{value:.3f}" for value in (*line["folds"], line["mean"], line["std"]))])
    return aligned(cells)
