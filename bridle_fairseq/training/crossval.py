"""Cross-validation on the folds of a table. A run that was stopped continues where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.exported.source import model_sha256
from bridle_fairseq.nn.pooling_kinds import PROBED_SOUND
from bridle_fairseq.prepare.corpus import Corpus, labelled_corpus, scan_source
from bridle_fairseq.prepare.folds import Fold, make_folds, match_all
from bridle_fairseq.prepare.tables import read_table
from bridle_fairseq.training.fold_outcomes import check_folds_match, fold_difference
from bridle_fairseq.training.fold_runs import FoldOptions, check_folds, is_fold, read_scores, remove_folds, run_folds
from bridle_fairseq.training.fold_summary import CHOSEN, write_summary
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text, file_sha256
from bridle_fairseq.utils.json_files import parse_json


@dataclass(frozen=True)
class CrossvalOptions:
    """A cross-validation.

    Attributes:
        table: csv file of the clips with their classes and folds.
        audio: folder or stored archive of the clips.
        run: what is trained and tested in each fold, and where.
        name_column, label_column, fold_column: columns of the table; None: one of the usual names.
        label_separator: between the classes of a clip, any number of them; None: each clip has one.
        classes: path of an existing ``labels.csv``; None: the classes of the table.
        folds: names of the folds to test; None: each in turn.
        valid_share: fraction of the other folds that validates.
        overwrite: delete results of other settings or checkpoints.
        against: folder of another cross-validation of the same clips and folds, to compare with; None: none.

    Raises:
        InputError: options that do not fit the mode.
    """

    table: str
    audio: str
    run: FoldOptions
    name_column: str | None = None
    label_column: str | None = None
    fold_column: str = "fold"
    label_separator: str | None = None
    classes: str | None = None
    folds: Sequence[str] | None = None
    valid_share: float = 0.1
    overwrite: bool = False
    against: str | None = None

    def __post_init__(self) -> None:
        run = self.run
        if run.mode == "logmel" and (run.checkpoint or run.untrained):
            raise InputError("--mode logmel has no encoder; expected no --checkpoint and no --untrained")
        if run.mode != "logmel" and not run.checkpoint:
            more = " (with --untrained only its settings are taken)" if run.untrained else ""
            raise InputError(f"--mode {run.mode} needs --checkpoint, one of the model 'bridle'{more}")
        if run.overrides and run.mode != "finetune":
            raise InputError(f"{run.overrides[0]!r} after --; expected overrides of training with --mode finetune only")


class FoldedCorpus(NamedTuple):
    """Labelled clips and their folds."""

    corpus: Corpus  # with the splits "all" and "fold{name}/train", "/valid", "/test"
    labels: np.ndarray  # class number of each row of "all"; with a label separator, rows x classes of 0 and 1
    folds: list[Fold]


def cross_validate(options: CrossvalOptions, say: Callable[[str], object]) -> str:
    """Write the folds' manifests, run the folds that have no result yet, and return the table of results.

    Args:
        options: options of the cross-validation.
        say: called with lines about the progress.

    Raises:
        InputError: the table, the clips or a checkpoint cannot be used, or there are results of other settings.
    """
    run, out = options.run, options.run.out
    corpus, labels, folds = prepare_folds(options)
    for path in dict.fromkeys(run.checkpoint_of(fold) for fold in folds if run.checkpoint):
        model_sha256(path)  # is there
    settings = _settings(options, corpus)
    _check_settings(settings, out, options.overwrite)
    check_folds(run, folds, options.overwrite)
    corpus.write(out, say=lambda text: None)
    assert corpus.classes is not None
    num_classes = len(corpus.classes)
    if options.against is not None:
        check_folds_match(out, Path(options.against), folds)
    say(f"{len(labels)} clips, {num_classes} classes, {len(folds)} folds: manifests in {out}")
    for fold in folds if labels.ndim == 2 else ():
        absent = num_classes - int(labels[fold.test].any(0).sum())
        if absent:
            say(f"fold {fold.name}: {absent} of {num_classes} classes have no clip in it and are left out of its mAP")
    scores = run_folds(run, folds, labels, num_classes, say)
    metric = "mAP" if labels.ndim == 2 else "accuracy"
    if options.against is None:
        return write_summary(scores, out, settings, metric)
    there = Path(options.against)
    others = {fold.name: read_scores(there / f"fold{fold.name}" / "result.json") for fold in folds}
    targets = labels if labels.ndim == 2 else labels[:, None] == np.arange(num_classes)
    difference = fold_difference((out, scores), (there, others), folds, targets, labels.ndim == 2, run.seed)
    against = {"folder": options.against, **difference._asdict()}
    clips = sum(len(fold.test) for fold in folds)
    table = write_summary(scores, out, settings, metric, against)
    return f"{table}\n\n{CHOSEN}, minus that of {there}: {difference} over {clips} test clips in {len(folds)} folds"


def prepare_folds(options: CrossvalOptions) -> FoldedCorpus:
    """Match the table with the clips and divide them into the splits of all folds.

    Raises:
        InputError: the table or the clips cannot be used.
    """
    columns = {"name": options.name_column, "label": options.label_column, "fold": options.fold_column}
    entries = read_table(options.table, columns, options.label_separator)
    multi_label, seed = options.label_separator is not None, options.run.seed
    max_skipped = options.run.batch.max_skipped
    scan = scan_source(options.audio, options.run.out, max_skipped=max_skipped, named=entries)
    entry_of_file = match_all(scan, entries, options.table, multi_label)
    classes = Classes.read(options.classes) if options.classes else None
    corpus = labelled_corpus(scan, entry_of_file, 0.0, seed, classes, fold_valid_percent=0.0)
    assert corpus.classes is not None
    used = np.array([row for row, entry in enumerate(entry_of_file) if entry is not None])
    if multi_label:
        labels = np.stack([Labels([corpus.labels[row]], corpus.classes).multi_hot(0) for row in used])
    else:
        labels = np.array([corpus.labels[row][0] for row in used])
    fold_names = [entry.fold for entry in entry_of_file if entry is not None]
    folds = make_folds(fold_names, labels, corpus.classes, options.valid_share, seed, options.folds)
    corpus.splits = {"all": used}
    for fold in folds:
        for part, rows in (("train", fold.train), ("valid", fold.valid), ("test", fold.test)):
            corpus.splits[f"fold{fold.name}/{part}"] = used[rows]
    return FoldedCorpus(corpus, labels, folds)


def _settings(options: CrossvalOptions, corpus: Corpus) -> dict[str, Any]:
    """Everything that the results depend on."""
    run = options.run
    assert corpus.classes is not None
    rows = [(corpus.scan.files[row].name, corpus.scan.sizes[row], corpus.labels[row]) for row in corpus.splits["all"]]
    clips = hashlib.sha256(repr((rows, corpus.classes.ids)).encode()).hexdigest()
    table = file_sha256(options.table)
    settings: dict[str, Any] = {"mode": run.mode, "clips_sha256": clips, "table_sha256": table, "seed": run.seed}
    settings["valid_share"] = options.valid_share
    if options.label_separator is not None:
        settings["label_separator"] = options.label_separator
        # How validation is drawn. Version 0.1 drew it otherwise, and wrote nothing here.
        settings["stratification"] = "iterative"
    if run.mode != "logmel":
        own = "{fold}" in run.checkpoint  # each fold's files then name its checkpoint
        settings["checkpoint_sha256"] = "of each fold" if own else model_sha256(run.checkpoint)
        settings["untrained"] = run.untrained
    if run.mode == "finetune":
        settings |= {"config_dir": run.config_dir, "config_name": run.config_name, "overrides": list(run.overrides)}
    else:
        settings |= {"layers": list(run.layers), **vars(run.chunks)}
    if run.mode == "probe":
        settings["poolings"] = ", ".join(PROBED_SOUND)
    return settings


def _check_settings(settings: dict[str, Any], out: Path, overwrite: bool) -> None:
    """Check that the folder's results are of these settings, and write them; ``overwrite`` deletes other results."""
    path = out / "settings.json"
    try:
        stored: dict[str, Any] | None = dict(parse_json(path.read_bytes()))
    except FileNotFoundError:
        stored = None
    except (ValueError, TypeError):
        raise InputError(f"{path}: not JSON; expected the settings that an earlier run wrote, or no file") from None
    if stored is not None and "poolings" in settings:
        stored.setdefault("poolings", "mean, frequency")  # version 0.1 wrote nothing here
    if stored is not None and stored != settings:
        name = next(name for name in {**settings, **stored} if settings.get(name) != stored.get(name))
        if not overwrite:
            raise InputError(
                f"{path}: results of other settings are there ({name} {str(stored.get(name))[:60]}); expected "
                f"{str(settings.get(name))[:60]}: choose another --out, or delete them with --overwrite"
            )
        remove_folds(path for path in out.glob("fold*") if is_fold(path))
    with atomic_text(path) as file:
        json.dump(settings, file, indent=2)
        file.write("\n")
