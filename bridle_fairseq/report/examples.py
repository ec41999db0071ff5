"""What a trained model makes of some items: codes of clips, predictions of what was hidden, a map of embeddings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modality import as_configuration, modality_of
from bridle_fairseq.nn.classifier import pool_patches
from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.masking import MASKINGS, choose_targets
from bridle_fairseq.report.pictures import Clip, draw, laid_out
from bridle_fairseq.utils.errors import InputError

VISIBLE, RIGHT, WRONG = 0, 1, 2
BATCH = 16
TSNE_FROM = 30  # clips; of fewer, the two principal components say more


class Example(NamedTuple):
    """A clip, and what the model predicts where it was hidden."""

    clip: Clip
    predicted: np.ndarray  # rows x columns x K: VISIBLE, RIGHT or WRONG


class Map(NamedTuple):
    """Clips in two dimensions."""

    points: np.ndarray  # n x 2
    labels: list[str]
    how: str  # the method


class Items:
    """The clips of a manifest, with their labels where there are some.

    Args:
        path: of the manifest.
        task: the run's task configuration.

    Raises:
        InputError: a manifest, files or labels that cannot be used.
    """

    def __init__(self, path: str, task: Mapping[str, Any]) -> None:
        self.manifest = Manifest.read(path)
        cfg = as_configuration(task)
        self.dataset = modality_of(cfg).dataset(self.manifest, cfg)
        self.labels: Labels | None = None
        classes, labels = Path(path).with_name("labels.csv"), Path(path).with_suffix(".lbl")
        if classes.is_file() and labels.is_file():
            self.labels = Labels.read(labels, self.manifest, Classes.read(classes))

    def label(self, row: int) -> str:
        """Name of a row's first class; empty where there is none."""
        if self.labels is None or not self.labels[row]:
            return ""
        return self.labels.classes.names[self.labels[row][0]]


def items_of(run: Any, manifest: str | None) -> Items | None:
    """The clips of the given manifest, else of the run's validation split; None where that is not there any more."""
    if manifest is not None:
        return Items(manifest, run.cfg["task"])
    subset = str((run.cfg.get("dataset") or {}).get("valid_subset") or "valid").split(",")[0]
    path = os.path.join(str(run.cfg["task"].get("data") or ""), f"{subset}.tsv")
    try:
        return Items(path, run.cfg["task"])
    except InputError:
        return None


@torch.inference_mode()
def examples(model: Any, items: Items, count: int) -> list[Example]:
    """A few clips, of different classes where there are labels."""
    found: dict[Any, Example] = {}
    for row in range(len(items.manifest)):
        key = items.label(row) or row
        source = None if key in found else items.dataset[row]["source"]
        if source is not None:
            found[key] = example(model, items.manifest.relative_path(row), items.label(row), source, row)
        if len(found) == count:
            break
    return list(found.values())


@torch.inference_mode()
def example(model: Any, name: str, label: str, source: torch.Tensor, seed: int) -> Example:
    """An item with its codes and predictions, by a model on the CPU; ``seed``: of what is hidden."""
    settings = model.settings
    patches = model.front_end(source[None])
    codes = model.codes(patches, model.has_tokenizer)
    generator = torch.Generator().manual_seed(seed)
    mask = MASKINGS[settings.masking](1, patches.grid, settings.mask_ratio, generator=generator)
    x = model.encoder(patches.x, patches.grid, visible=mask.visible, visible_padding=mask.visible_padding).x
    targets = choose_targets(mask)
    logits = model.decoder(x, mask, targets, patches.grid, None)
    right = logits.argmax(-1) == targets.of(codes)  # P x K
    predicted = torch.full_like(codes, VISIBLE)
    predicted[mask.masked] = torch.where(right, RIGHT, WRONG)
    clip = draw(model, name, label, source, codes.view(*patches.grid, -1).numpy())
    return Example(clip, laid_out(predicted.view(*patches.grid, -1).numpy(), settings.modality))


@torch.inference_mode()
def embedding_map(model: Any, items: Items, most: int) -> Map | None:
    """Mean-pooled embeddings of up to ``most`` clips of a manifest in two dimensions; None without labels."""
    if items.labels is None:
        return None
    rows = np.unique(np.linspace(0, len(items.manifest) - 1, most).round().astype(int)).tolist()
    vectors, labels = [], []
    for start in range(0, len(rows), BATCH):
        batch = items.dataset.collater([items.dataset[row] for row in rows[start : start + BATCH]])
        if not batch:
            continue
        found = model.extract_features(**batch["net_input"])
        out = EncoderOutput(found["x"], found["class_token"], [])
        vectors.append(pool_patches(out, found["grid"], found["padding_mask"], "mean").numpy())
        labels += [items.label(int(row)) or "no label" for row in batch["id"]]
    if len(labels) < 3:
        return None
    points, how = _two_dimensions(np.concatenate(vectors))
    return Map(points, labels, how)


def _two_dimensions(vectors: np.ndarray) -> tuple[np.ndarray, str]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    scaled = (vectors - vectors.mean(0)) / np.maximum(vectors.std(0), 1e-6)
    if len(scaled) < TSNE_FROM:
        return PCA(2, random_state=0).fit_transform(scaled), "PCA"
    reduced = PCA(min(30, *scaled.shape), random_state=0).fit_transform(scaled)
    return TSNE(2, perplexity=min(20, len(scaled) / 4), init="pca", random_state=0).fit_transform(reduced), "t-SNE"
