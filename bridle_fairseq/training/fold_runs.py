"""The folds of a cross-validation, one after the other, and their mean.

A fold's result is ``fold{name}/result.json``, written last: a fold that has it is not run again. With ``{fold}`` in the
path of the checkpoint, each fold has its own, pretrained without the clips that test it. ``fold{name}/begun.json`` says
which checkpoint the files of an unfinished fold belong to.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridle_fairseq.data.artifacts.features import CachedFeatures, FeatureArray
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.evaluation.probe import Split
from bridle_fairseq.evaluation.probe_table import ProbeRow, compare, finite_rows, write
from bridle_fairseq.exported.source import find_export, model_sha256
from bridle_fairseq.inference.chunking import ChunkOptions, choose_chunking
from bridle_fairseq.inference.extractors import (
    EncoderFeatures,
    Extractor,
    LogMelFeatures,
    choose_layers,
    random_init_copy,
)
from bridle_fairseq.inference.features import write_features
from bridle_fairseq.inference.pipeline import BatchOptions
from bridle_fairseq.nn.frontend import AudioFrontEnd, FrontEnd
from bridle_fairseq.nn.pooling_kinds import PROBED_SOUND
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.open_model import open_model
from bridle_fairseq.prepare.folds import Fold
from bridle_fairseq.training.fold_outcomes import FoldScore, best_of, placed, write_scores
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text, locked
from bridle_fairseq.utils.json_files import read_json
from bridle_fairseq.utils.schema import Anything, Mapped, check, shown


@dataclass(frozen=True)
class FoldOptions:
    """What is trained and tested in each fold.

    Attributes:
        out: folder of ``all.tsv`` and of the folds' folders.
        mode: ``probe``, ``finetune`` or ``logmel``.
        checkpoint: path, perhaps with ``{fold}``; empty if the mode needs none.
        untrained: replace the checkpoint's weights by random ones.
        layers: of the encoder, see :func:`choose_layers`.
        chunks: how long clips are divided.
        batch: how clips are read and batched, and where the model runs.
        seed: of random weights and of the probes.
        config_dir, config_name, overrides: of fine-tuning; see :class:`.finetuning.FineTuningRun`.
    """

    out: Path
    mode: str = "probe"
    checkpoint: str = ""
    untrained: bool = False
    layers: Sequence[str] = ("all",)
    chunks: ChunkOptions = ChunkOptions()
    batch: BatchOptions = BatchOptions()
    seed: int = 1
    config_dir: str | None = None
    config_name: str = "tiny"
    overrides: Sequence[str] = ()

    def folder(self, fold: Fold) -> Path:
        """Folder of a fold's files."""
        return self.out / f"fold{fold.name}"

    def checkpoint_of(self, fold: Fold) -> str:
        """Path of a fold's checkpoint; empty if none is needed."""
        return self.checkpoint.replace("{fold}", fold.name)


def check_folds(options: FoldOptions, folds: Sequence[Fold], overwrite: bool) -> None:
    """Check that the files of earlier runs belong to the checkpoints that the folds have now.

    Args:
        options: of the folds.
        folds: that are to be run.
        overwrite: delete files of other checkpoints.

    Raises:
        InputError: a fold was begun with another checkpoint, or its result cannot be read.
    """
    for fold in folds:
        about = _about(options, fold)
        for path in (options.folder(fold) / "result.json", options.folder(fold) / "begun.json"):
            stored = _read_json(path) if path.exists() else about
            if all(stored.get(name) == value for name, value in about.items()):
                continue
            if not overwrite:
                raise InputError(
                    f"{path}: a result of another checkpoint than the fold has now; expected the same: choose another "
                    "--out, or delete results with --overwrite"
                )
            remove_folds([options.folder(fold)])


def is_fold(folder: Path) -> bool:
    """Whether a cross-validation has begun a fold in this folder, so that what it holds can be deleted."""
    return not folder.is_symlink() and any(
        _names_a_fold(folder / name, folder.name.removeprefix("fold")) for name in ("begun.json", "result.json")
    )


def _names_a_fold(path: Path, name: str) -> bool:
    try:
        stored = read_json(path, finite=False)
        return stored["fold"] == name and "checkpoint_sha256" in stored
    except (InputError, KeyError, TypeError):
        return False


def remove_folds(folders: Iterable[Path]) -> None:
    """Delete folders of folds, all or none.

    Raises:
        InputError: a folder that no cross-validation has made, or in which another process runs a fold.
    """
    folders = list(folders)
    with ExitStack() as locks:
        for folder in folders:
            if not is_fold(folder):
                raise InputError(f"{folder}: it holds no fold of bridle crossval; expected another --out")
            if not locks.enter_context(locked(folder, wait=False)):
                raise InputError(f"{folder}: another process runs this fold; expected none with --overwrite")
        for folder in folders:
            shutil.rmtree(folder)


def _about(options: FoldOptions, fold: Fold) -> dict[str, str]:
    checkpoint = options.checkpoint_of(fold)
    return {"fold": fold.name, "checkpoint_sha256": model_sha256(checkpoint) if checkpoint else ""}


def run_folds(
    options: FoldOptions,
    folds: Sequence[Fold],
    labels: np.ndarray,
    num_classes: int,
    say: Callable[[str], object],
) -> dict[str, list[FoldScore]]:
    """Scores by fold. Folds that have a result (see :func:`check_folds`) are not run again.

    Args:
        options: of the folds.
        folds: to run.
        labels: class number of each row of ``all.tsv``, or rows x classes of 0 and 1.
        num_classes: of the labels.
        say: called with a line about each fold.
    """
    scores: dict[str, list[FoldScore]] = {}
    features: dict[FeatureArray, np.ndarray] = {}
    extracted_by = None
    for fold in folds:
        folder, checkpoint = options.folder(fold), options.checkpoint_of(fold)
        with _alone_in(folder, fold, say):
            if not (folder / "result.json").exists():
                about = _about(options, fold)
                with atomic_text(folder / "begun.json") as file:
                    json.dump(about, file)
                if options.mode == "finetune":
                    row, test_scores = _finetune(options, fold, labels.ndim == 2, say)
                    rows, clip_scores = [row], [test_scores]
                else:
                    if checkpoint != extracted_by:
                        features, extracted_by = _features(options, fold), checkpoint
                    rows, clip_scores = _probe(fold, features, labels, num_classes, options.seed)
                write_scores(folder, clip_scores)
                write(rows, about, folder, "result")
        scores[fold.name] = read_scores(folder / "result.json")
        first = next(iter(scores))
        rows_of = {name: [score.name for score in scores[name]] for name in (first, fold.name)}
        if rows_of[first] != rows_of[fold.name]:
            raise InputError(
                f"{folder / 'result.json'}: other rows than those of fold {first}, {shown(rows_of[first])}; expected "
                "the same: remove it to do the fold again"
            )
        best = scores[fold.name][best_of(scores[fold.name])]
        say(f"fold {fold.name}: {best.test:.3f} ({best.name})")
    return scores


@contextmanager
def _alone_in(folder: Path, fold: Fold, say: Callable[[str], object]) -> Iterator[None]:
    """Wait until no other process runs this fold; its result is then there."""
    with locked(folder, wait=False) as held:
        if held:
            yield
            return
    say(f"fold {fold.name}: waiting for another process that runs it")
    with locked(folder):
        yield


def _read_json(path: Path) -> dict[str, Any]:
    try:
        stored = read_json(path, "this result", finite=False)  # of a metric that no clip defines
        check(Mapped({}, others=Anything()), "", stored, str(path))
    except InputError as error:
        raise InputError(f"{error}; remove it to do the fold again") from None
    return stored


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot read this result ({error!r}); remove it to do the fold again")


def read_scores(path: Path) -> list[FoldScore]:
    """The scores of a fold's ``result.json``.

    Raises:
        InputError: it cannot be read.
    """
    try:
        rows = _read_json(path)["rows"]
        names = [", ".join(filter(None, (row["features"], row["pooling"], row["probe"]))) for row in rows]
        scores = [FoldScore(n, float(row["valid"]), float(row["test"])) for n, row in zip(names, rows, strict=True)]
        if not scores or len(set(names)) != len(names):
            raise ValueError(f"{len(names)} rows, {len(set(names))} of them different")
        odd = [score for score in scores if not all(math.isnan(v) or 0 <= v <= 1.001 for v in score[1:])]
        if odd:
            raise ValueError(f"{odd[0].name} has {odd[0].valid:g} and {odd[0].test:g}; expected 0 to 1")
        return scores
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _unreadable(path, error) from None


def _probe(
    fold: Fold, features: Mapping[FeatureArray, np.ndarray], labels: np.ndarray, num_classes: int, seed: int
) -> tuple[list[ProbeRow], list[np.ndarray]]:
    """The fold's rows, and the scores of its test clips (clips x classes) of each row."""
    readable = finite_rows(features)
    train, valid, test = (part[readable[part]] for part in (fold.train, fold.valid, fold.test))
    splits = {array: Split(values[train], values[valid], values[test]) for array, values in features.items()}
    rows = compare(splits, Split(labels[train], labels[valid], labels[test]), refit=True, seed=seed)
    clips = np.flatnonzero(readable[fold.test])
    classes = np.arange(num_classes) if labels.ndim == 2 else np.unique(labels[train])
    return rows, [
        placed(outcome.scores, clips, classes, len(fold.test), num_classes) for row in rows for outcome in row.outcomes
    ]


def _features(options: FoldOptions, fold: Fold) -> dict[FeatureArray, np.ndarray]:
    """Features of all clips by the fold's checkpoint; folds that share a checkpoint share them."""
    task_cfg, sha256, checkpoint = None, "", options.checkpoint_of(fold)
    if options.mode == "logmel":
        log_mel = LogMelFeatures(AudioFrontEnd(BridleSettings()).to(options.batch.device))
        extractor: Extractor = log_mel
        front_end: FrontEnd = log_mel.front_end
    else:
        opened = open_model(checkpoint, "features", options.batch.device)
        model = opened.model
        layers = choose_layers(options.layers, model.encoder.depth)
        model = random_init_copy(model, options.seed) if options.untrained else model
        extractor = EncoderFeatures(model, layers, PROBED_SOUND, "untrained" if options.untrained else "encoder")
        front_end, sha256, task_cfg = model.front_end, opened.sha256, opened.inputs
    chunking = choose_chunking(options.chunks, front_end, task_cfg)
    manifest = Manifest.read(options.out / "all.tsv")
    shared = checkpoint == options.checkpoint
    prefix = (options.out if shared else options.folder(fold)) / "all.features"
    # The settings of this folder have been checked, so features of others can be replaced.
    write_features(extractor, chunking, manifest, prefix, sha256, options.batch, overwrite=True)
    stored = CachedFeatures(prefix, manifest)
    return {array: stored[array.name] for array in extractor.arrays}


def _finetune(
    options: FoldOptions, fold: Fold, multi_label: bool, say: Callable[[str], object]
) -> tuple[ProbeRow, np.ndarray]:
    """The fold's row, and the scores of its test clips, clips x classes."""
    from bridle_fairseq.models.checkpoints import load_model, read_bridle, write_untrained
    from bridle_fairseq.training.finetuning import FINETUNING_CONFIGS, MULTI_LABEL, FineTuningRun, score_split

    folder, checkpoint = options.folder(fold), options.checkpoint_of(fold)
    read = load_model if find_export(checkpoint) is None else read_bridle
    read(checkpoint)  # fail before training if it cannot be used
    checkpoint = os.path.abspath(checkpoint) if os.path.exists(checkpoint) else checkpoint
    if options.untrained:
        checkpoint = write_untrained(checkpoint, folder / "untrained.pt", options.seed)
    configs = Path(options.config_dir).absolute() if options.config_dir else FINETUNING_CONFIGS
    config = configs / f"{options.config_name}.yaml"
    if not config.is_file():
        raise InputError(f"{config}: no such file; expected a configuration for --config-name")
    say(f"{folder.name}: fine-tuning, log in {folder / 'train.log'}")
    overrides = [*(MULTI_LABEL if multi_label else ()), *options.overrides]
    best = FineTuningRun(checkpoint, folder, folder, configs, options.config_name, overrides).train()
    found = score_split(best, folder, "test", options.batch.batch_size, options.batch.device)
    name, num_classes = "from scratch" if options.untrained else "fine-tuned", found.scores.shape[1]
    row = ProbeRow(name, "", "", 0, {}, found.best_valid, found.score, None, {})
    return row, placed(found.scores, found.rows, np.arange(num_classes), len(fold.test), num_classes)
