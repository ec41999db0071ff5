"""What probes compare: features of labelled splits by an encoder, by a random copy of it, and by a baseline."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.features import PATCHES, CachedFeatures, FeatureArray
from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.evaluation.probe import Split
from bridle_fairseq.evaluation.probe_table import finite_rows
from bridle_fairseq.exported.format import CONFIG
from bridle_fairseq.inference.baselines import baseline_of
from bridle_fairseq.inference.chunking import Chunking, WholeClip
from bridle_fairseq.inference.extractors import EncoderFeatures, EncoderModel, Extractor, random_init_copy
from bridle_fairseq.inference.features import extract_corpus
from bridle_fairseq.inference.pipeline import BatchOptions
from bridle_fairseq.utils.errors import InputError

Arrays = Mapping[FeatureArray, Any]  # n x d each; patches: PatchRows of n clips


class LabelledSplit(NamedTuple):
    """Clips and their classes."""

    manifest: Manifest
    labels: Labels


class ProbeData(NamedTuple):
    """Features by array, and labels, of the rows of three splits that could be read.

    Labels are n class numbers, or n x C of 0 and 1 unless each clip has exactly one class.
    """

    features: dict[FeatureArray, Split]
    labels: Split

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have any number of classes."""
        return self.labels.train.ndim == 2

    def majority_accuracy(self) -> float:
        """Accuracy on the test split of always predicting the most frequent class of the training split."""
        values, counts = np.unique(self.labels.train, return_counts=True)
        return float((self.labels.test == values[counts.argmax()]).mean())


def read_labelled_splits(folder: str | os.PathLike[str], names: Sequence[str]) -> dict[str, LabelledSplit]:
    """``{name}.tsv`` and ``{name}.lbl`` of each split, whose classes are in ``labels.csv``.

    Raises:
        InputError: a file cannot be used.
    """
    splits = {}
    for name in dict.fromkeys(names):
        manifest = Manifest.read(os.path.join(folder, f"{name}.tsv"))
        classes = Classes.read(os.path.join(folder, "labels.csv"))
        splits[name] = LabelledSplit(manifest, Labels.read(os.path.join(folder, f"{name}.lbl"), manifest, classes))
    return splits


def probe_extractors(
    model: EncoderModel,
    layers: Sequence[int],
    poolings: Sequence[str],
    seed: int,
    baselines: bool = True,
    source: str = "encoder",
    patch_layers: Sequence[int] = (),
) -> list[Extractor]:
    """A model's encoder, and with ``baselines`` its copy with random weights and statistics of the input."""
    extractors: list[Extractor] = [EncoderFeatures(model, layers, poolings, source, patch_layers)]
    if baselines:
        extractors.append(EncoderFeatures(random_init_copy(model, seed), layers, poolings, "untrained", patch_layers))
        extractors.append(baseline_of(model))
    return extractors


def extract_splits(
    extractors: Sequence[Extractor],
    chunking: Chunking | WholeClip,
    splits: Mapping[str, LabelledSplit],
    options: BatchOptions,
    skipped_folder: str | os.PathLike[str] | None = None,
    on_split: Callable[[str, int], object] = lambda name, clips: None,
) -> dict[str, Arrays]:
    """Features of all splits.

    Args:
        extractors, chunking, options: see :func:`extract_corpus`.
        splits: by name.
        skipped_folder: gets a list of the clips that cannot be read, ``{name}.skipped.tsv``.
        on_split: called with a split's name and number of readable clips, when its features are there.

    Raises:
        InputError: too many clips are unusable.
    """
    features: dict[str, Arrays] = {}
    for name, split in splits.items():
        path = None if skipped_folder is None else os.path.join(skipped_folder, f"{name}.skipped.tsv")
        features[name] = extract_corpus(extractors, chunking, split.manifest, options, name, path)
        on_split(name, int(finite_rows(features[name]).sum()))
    return features


def is_features(path: str) -> bool:
    """Whether this is a folder into which ``bridle features`` wrote: one, but not that of an exported model."""
    return os.path.isdir(path) and not os.path.exists(os.path.join(path, CONFIG))


def read_stored_splits(
    folder: str | os.PathLike[str], splits: Mapping[str, LabelledSplit], pooled: bool = True, patches: bool = False
) -> tuple[dict[str, Arrays], str]:
    """Features of all splits that ``bridle features`` wrote, and the sha256 of the checkpoint that made them.

    Args:
        folder: that it wrote into.
        splits: by name.
        pooled, patches: which of them are wanted. Patches stay on disk.

    Raises:
        InputError: features that cannot be used, that lack what is wanted, or that differ between splits.
    """
    features: dict[str, dict[FeatureArray, Any]] = {}
    first: CachedFeatures | None = None
    for name, split in splits.items():
        stored = CachedFeatures(os.path.join(folder, f"{name}.features"), split.manifest)
        first = first or stored
        if (stored.info.arrays, stored.info.checkpoint_sha256) != (first.info.arrays, first.info.checkpoint_sha256):
            raise InputError(
                f"{stored.prefix}.json: features of other layers, poolings or another checkpoint than those of "
                f"{first.prefix}.json; expected the same"
            )
        of_patches = [array for array in stored.info.arrays if array.pooling == PATCHES]
        of_clips = [array for array in stored.info.arrays if array.pooling != PATCHES]
        if pooled and not of_clips:
            raise InputError(f"{stored.prefix}.json: features of patches only; expected pooled ones, to probe")
        if patches and not of_patches:
            raise InputError(f"{stored.prefix}.json: no patches; expected features of --pooling patches")
        features[name] = {a: np.asarray(stored[a.name], dtype=np.float32) for a in of_clips if pooled}
        features[name].update({array: stored.patch_rows(array.name) for array in of_patches if patches})
    assert first is not None
    return dict(features), first.info.checkpoint_sha256


def renamed(features: Mapping[str, Arrays], source: str) -> dict[str, Arrays]:
    """Features of all splits under another name of their source."""
    return {
        name: {replace(array, source=source): values for array, values in arrays.items()}
        for name, arrays in features.items()
    }


def probe_data(
    features: Mapping[str, Arrays],
    splits: Mapping[str, LabelledSplit],
    names: Sequence[str],
    folder: str | os.PathLike[str],
) -> ProbeData:
    """The readable rows of the splits with these names, for training, validation and test.

    Args:
        features: features of the splits, by name.
        splits: by name.
        names: names of the three splits, which may be equal.
        folder: folder of the splits, for messages.

    Raises:
        InputError: a split without a readable clip, or fewer than two classes in the training split.
    """
    single = all(split.labels.single for split in splits.values())
    readable = {name: np.flatnonzero(finite_rows(features[name])) for name in names}

    def targets(name: str) -> np.ndarray:
        labels = splits[name].labels
        return np.array([labels[row][0] if single else labels.multi_hot(row) for row in readable[name].tolist()])

    data = ProbeData(
        {array: Split(*(features[name][array][readable[name]] for name in names)) for array in features[names[0]]},
        Split(*map(targets, names)),
    )
    _check_labels(data, splits[names[0]].labels.classes, names, folder)
    return data


def _check_labels(data: ProbeData, classes: Classes, names: Sequence[str], folder: str | os.PathLike[str]) -> None:
    for name, labels in zip(names, data.labels, strict=True):
        if len(labels) == 0:
            raise InputError(f"{os.path.join(folder, name)}.tsv: not one clip can be read; expected some")
    train = data.labels.train
    trained = np.flatnonzero(train.any(0)) if data.multi_label else np.unique(train)
    if len(trained) < 2:
        ids = ", ".join(repr(classes.ids[number]) for number in trained) or "none"
        raise InputError(f"{os.path.join(folder, names[0])}.lbl: {len(trained)} class ({ids}); expected 2 at least")
