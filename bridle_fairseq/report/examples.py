"""Examples of what a trained model does: codes of clips, predictions at masked patches, a map of embeddings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.classifier import pool_patches
from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.masking import MASKINGS, choose_targets
from bridle_fairseq.report.pictures import Clip, draw, in_picture_layout
from bridle_fairseq.report.run import Run
from bridle_fairseq.utils.errors import InputError

VISIBLE, RIGHT, WRONG = 0, 1, 2
BATCH = 16
TSNE_FROM = 30  # clips; with fewer, two principal components show more


class Example(NamedTuple):
    """A clip, and the predictions at its masked patches."""

    clip: Clip
    predicted: np.ndarray  # rows x columns x K: VISIBLE, RIGHT or WRONG


class Map(NamedTuple):
    """Embeddings of clips in two dimensions."""

    points: np.ndarray  # n x 2
    labels: list[str]
    method: str  # "PCA", "t-SNE", or how else
    names: Sequence[str] = ()  # of the clips, for the pointer
    places: Mapping[str, tuple[float, float]] = {}  # of classes on the unit circle; empty: points lie anywhere


class Items:
    """The clips of a manifest, with labels if it has any.

    Args:
        path: of the manifest.
        cfg: configuration of the run's task.

    Raises:
        InputError: the manifest, its files or labels cannot be used.
    """

    def __init__(self, path: str, cfg: Any) -> None:
        self.manifest = Manifest.read(path)
        self.dataset = modality_of(cfg).dataset(self.manifest, cfg)
        self.labels: Labels | None = None
        classes, labels = Path(path).with_name("labels.csv"), Path(path).with_suffix(".lbl")
        if classes.is_file() and labels.is_file():
            self.labels = Labels.read(labels, self.manifest, Classes.read(classes))

    def label(self, row: int) -> str:
        """Name of a row's first class; empty without one."""
        if self.labels is None or not self.labels[row]:
            return ""
        return self.labels.classes.names[self.labels[row][0]]


def items_of(run: Run, manifest: str | None) -> Items | None:
    """The clips of the given manifest; for None, those of the run's validation split, or None if it is gone."""
    if manifest is not None:
        return Items(manifest, run.task)
    from bridle_fairseq.models.checkpoint_config import manifests_of_run

    for path in filter(os.path.isfile, manifests_of_run(run.cfg, "valid")[:1]):  # not a pipe of that name
        with contextlib.suppress(InputError):
            return Items(path, run.task)
    return None


@torch.inference_mode()
def examples(model: Bridle, items: Items, count: int) -> list[Example]:
    """Up to ``count`` clips; of different classes if there are labels."""
    chosen: dict[str | int, Example] = {}
    for row in range(len(items.manifest)):
        key = items.label(row) or row
        source = None if key in chosen else items.dataset[row]["source"]
        if source is not None:
            chosen[key] = example(model, items.manifest.relative_path(row), items.label(row), source, row)
        if len(chosen) == count:
            break
    return list(chosen.values())


@torch.inference_mode()
def example(model: Bridle, name: str, label: str, source: torch.Tensor, seed: int) -> Example:
    """An item with its codes and predictions, by a model on the CPU; ``seed`` is for the mask."""
    settings = model.settings
    patches = model.patches(source[None])
    codes = model.codes(patches, model.has_tokenizer)
    generator = torch.Generator().manual_seed(seed)
    mask = MASKINGS[settings.masking](1, patches.grid, settings.mask_ratio, generator=generator)
    x = model.encoder(patches.x, patches.grid, visible=mask.visible, visible_padding=mask.visible_padding).x
    targets = choose_targets(mask)
    logits = model.decoder(x, mask, targets, patches.grid, None)
    right = logits.argmax(-1) == targets.of(codes)  # P x K
    predicted = torch.full_like(codes, VISIBLE)  # 1 x N x K
    predicted[mask.masked] = torch.where(right, RIGHT, WRONG)
    clip = draw(model, name, label, source, codes.view(*patches.grid, -1).numpy())
    return Example(clip, in_picture_layout(predicted.view(*patches.grid, -1).numpy(), settings.modality))


@torch.inference_mode()
def embedding_map(model: Bridle, items: Items, most: int) -> Map | None:
    """Mean-pooled embeddings of up to ``most`` clips in two dimensions; None without labels."""
    if items.labels is None:
        return None
    rows = np.unique(np.linspace(0, len(items.manifest) - 1, most).round().astype(int)).tolist()
    vectors, labels = [], []
    for start in range(0, len(rows), BATCH):
        batch = items.dataset.collater([items.dataset[row] for row in rows[start : start + BATCH]])
        if not batch:
            continue
        features = model.extract_features(**batch["net_input"])
        out = EncoderOutput(features["x"], features["class_token"], [])
        vectors.append(pool_patches(out, features["grid"], features["padding_mask"], "mean").numpy())
        labels += [items.label(int(row)) or "no label" for row in batch["id"]]
    if len(labels) < 3:
        return None
    points, method = project(np.concatenate(vectors))
    return Map(points, labels, method)


def project(vectors: np.ndarray) -> tuple[np.ndarray, str]:
    """Project vectors, n x D -> n x 2, and the name of the method."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    scaled = (vectors - vectors.mean(0)) / np.maximum(vectors.std(0), 1e-6)
    if len(scaled) < TSNE_FROM:
        return PCA(2, random_state=0).fit_transform(scaled), "PCA"
    reduced = PCA(min(30, *scaled.shape), random_state=0).fit_transform(scaled)
    return TSNE(2, perplexity=min(20, len(scaled) / 4), init="pca", random_state=0).fit_transform(reduced), "t-SNE"
