"""Evaluation of a trained classifier or transcriber on a labelled manifest: metrics, and tables of its predictions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

from bridle_fairseq.data.manifests.labels import Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.data.manifests.transcripts import Transcripts
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.evaluation.classification import Evaluation, evaluate, write_predictions, write_tables
from bridle_fairseq.evaluation.wer import EditCounts, character_errors, load_jiwer, word_errors, write_transcripts
from bridle_fairseq.inference.classify import Progress, ViewOptions, reader_of_views, score_dataset, score_views
from bridle_fairseq.inference.transcribe import DecodingOptions, decoder_of, transcribe_dataset
from bridle_fairseq.open_model import OpenedModel
from bridle_fairseq.tasks.datasets import LabelledMedia, TranscribedMedia
from bridle_fairseq.utils.errors import InputError


@dataclass(frozen=True)
class EvaluateOptions:
    """What is evaluated on, and how.

    Attributes:
        manifest: path of ``{split}.tsv``.
        out: folder of the tables.
        labels: path of the labels or transcripts; None: beside the manifest.
        batch_size: clips of a batch.
        workers: processes that read files.
        max_skipped: abort if more than this fraction of the clips, and more than 10, is unreadable.
        views: classifiers of video: views that are averaged.
        decoding: transcribers: how transcripts are decoded.

    Raises:
        InputError: a batch size below 1, or a negative number of workers.
    """

    manifest: str
    out: str
    labels: str | None = None
    batch_size: int = 32
    workers: int = 2
    max_skipped: float = 0.01
    views: ViewOptions = ViewOptions()
    decoding: DecodingOptions = DecodingOptions()

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise InputError(
                f"--batch-size is {self.batch_size} and --workers {self.workers}; expected 1 or more and 0 or more"
            )

    @property
    def split(self) -> str:
        """Name of the split."""
        return os.path.basename(self.manifest).removesuffix(".tsv")

    def labels_path(self, ending: str) -> str:
        """Path of the labels, by default that of the manifest with this ending."""
        return self.labels or f"{self.manifest.removesuffix('.tsv')}.{ending}"

    def skip_log(self, manifest: Manifest) -> SkipLog:
        """Counts unreadable clips and lists them in ``{split}.skipped.tsv``."""
        return SkipLog(manifest, os.path.join(self.out, f"{self.split}.skipped.tsv"))


class ClassifierReport(NamedTuple):
    """How good a classifier is."""

    metrics: Evaluation
    skipped: int  # clips
    classes: int
    paths: list[str]  # of the tables


class TranscriberReport(NamedTuple):
    """How good a transcriber is."""

    clips: int
    skipped: int
    errors: dict[str, EditCounts]  # wer, cer, uer (of symbols)
    path: str  # of the table


def evaluate_classifier(
    opened: OpenedModel, manifest: Manifest, options: EvaluateOptions, progress: Progress = iter
) -> ClassifierReport:
    """Score a manifest's clips; write ``{split}.predictions.csv``, ``.classes.csv`` and ``.confusion.csv``.

    Args:
        opened: the model, with classes.
        manifest: the clips.
        options: see :class:`EvaluateOptions`.
        progress: wraps the iterable of batches.

    Raises:
        InputError: decoding options, labels that cannot be used, or too many unreadable clips.
    """
    model, classes, multi_label, modality = opened.model, opened.classes, opened.multi_label, modality_of(opened.inputs)
    assert classes is not None
    reader = reader_of_views(options.views, modality, opened.inputs)
    options.decoding.refuse()
    path = options.labels_path("lbl")
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such labels; expected the class ids of each row of {options.manifest}")
    classes.source = opened.source
    labels = Labels.read(path, manifest, classes, multi_label)
    skips = options.skip_log(manifest)
    media = modality.dataset(manifest, opened.inputs, skips=skips)
    dataset = LabelledMedia(media, labels=labels, multi_label=multi_label)
    if options.views.single:
        rows, scores = score_dataset(model, dataset, multi_label, options.batch_size, options.workers, progress)
    else:
        threads = max(1, options.workers)
        rows, scores, bad = score_views(model, manifest, reader, multi_label, options.batch_size, threads)
        for row, reason in bad.items():
            skips.add(row, reason)
    skips.check(options.max_skipped)
    if len(rows) == 0:
        raise InputError(f"{options.manifest}: no clip could be read; expected one at least")
    metrics = evaluate(scores, dataset.targets(rows.tolist()).numpy())
    paths = [write_predictions(options.out, options.split, manifest, labels, rows, scores, multi_label)]
    paths += write_tables(options.out, options.split, metrics, classes)
    return ClassifierReport(metrics, len(manifest) - metrics.clips, len(classes), paths)


def evaluate_transcriber(
    opened: OpenedModel, manifest: Manifest, options: EvaluateOptions, progress: Progress = iter
) -> TranscriberReport:
    """Transcribe a manifest's clips; write ``{split}.transcripts.csv``.

    Clips whose transcript needs more frames than the model emits count too: the model cannot get them right.

    Args: see :func:`evaluate_classifier`.

    Raises:
        InputError: several views, jiwer is missing, transcripts that cannot be used, or too many unreadable clips.
    """
    vocabulary, modality = opened.vocabulary, modality_of(opened.inputs)
    assert vocabulary is not None
    reader_of_views(options.views, modality, opened.inputs)
    load_jiwer()  # fail before the model runs
    vocabulary.source = opened.source
    decode = decoder_of(options.decoding, vocabulary)
    transcripts = Transcripts.read(options.labels_path(vocabulary.kind), manifest, vocabulary)
    skips = options.skip_log(manifest)
    media = modality.dataset(manifest, opened.inputs, skips=skips, whole=True)
    dataset = TranscribedMedia(media, transcripts=transcripts)
    hypotheses = transcribe_dataset(opened.model, dataset, options.batch_size, options.workers, decode, progress)
    skips.check(options.max_skipped)
    if not hypotheses:
        raise InputError(f"{options.manifest}: no clip could be read; expected one at least")
    references = {row: transcripts[row].tolist() for row in hypotheses}
    symbols = [list(rows.values()) for rows in (references, hypotheses)]
    texts = [[vocabulary.text(numbers) for numbers in clips] for clips in symbols]
    spelled = [[" ".join(vocabulary.spelled(numbers)) for numbers in clips] for clips in symbols]
    errors = {"wer": word_errors(*texts), "cer": character_errors(*texts), "uer": word_errors(*spelled)}
    path = write_transcripts(options.out, options.split, manifest, list(hypotheses), *texts)
    return TranscriberReport(len(hypotheses), len(manifest) - len(hypotheses), errors, path)
