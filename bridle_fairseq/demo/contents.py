"""Texts, numbers and clips of the demo's page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.demo.media import Media
from bridle_fairseq.demo.probing import Comparison
from bridle_fairseq.evaluation.scores import Difference
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.report.examples import Example, example

if TYPE_CHECKING:
    from bridle_fairseq.tasks.base import MediaTask


def headline(comparison: Comparison | None, media: Media) -> str:
    """The result in one sentence, whoever won."""
    if comparison is None:
        return "A trained encoder and tokenizer"
    best = max(comparison.untrained, comparison.baseline)
    mine = f"{comparison.pretrained:.2f}"
    if comparison.pretrained > best:
        others = f"Untrained: {comparison.untrained:.2f}, {media.baseline}: {comparison.baseline:.2f}."
        return f"Pretrained: {mine} of the test {media.one}s right. {others}"
    who = "the untrained encoder" if comparison.untrained >= comparison.baseline else f"the {media.baseline}"
    return f"This run did not beat {who}: {mine} of the test {media.one}s right, against {best:.2f}."


def summary(comparison: Comparison | None, media: Media, synthetic: bool) -> str:
    """What was compared."""
    what = media.made if synthetic else f"your {media.many}"
    if comparison is None:
        return f"Pretrained without labels on {what}, then turned into codes."
    return (
        f"{comparison.classes} classes of {what}. The encoder learned without labels; a linear classifier on its "
        f"frozen features then names the class of {comparison.test_clips} held-out {media.one}s."
    )


def table_note(comparison: Comparison | None) -> str:
    """Note on the table of results."""
    if comparison is None:
        return (
            "No labels were given, so there is nothing to probe. Run the demo with --labels CSV (columns file, label)."
        )
    return (
        "Ridge regression on standardized features. The layer and the regularization were chosen on the validation "
        "clips alone."
    )


def differences(comparison: Comparison | None, media: Media) -> list[str]:
    """What pretraining adds to an untrained encoder and to the baseline, with intervals, in sentences."""
    if comparison is None:
        return []
    pairs = {"an untrained encoder": comparison.minus_untrained, f"the {media.baseline}": comparison.minus_baseline}
    return [_difference(name, difference, comparison.test_clips, media.one) for name, difference in pairs.items()]


def _difference(name: str, difference: Difference, clips: int, one: str) -> str:
    value, low, high = difference
    told = "" if low > 0 or high < 0 else f" These {clips} {one}s do not tell the two apart."
    return (
        f"Of the same {clips} test {one}s, the pretrained encoder gets {_more(value)} right than {name}: with 95 % "
        f"confidence between {_more(low)} and {_more(high)}.{told}"
    )


def _more(share: float) -> str:
    return f"{abs(100 * share):.0f} % {'fewer' if share < 0 else 'more'}"


def clips_and_seconds(manifests: Path, splits: Sequence[str], modality: str) -> tuple[int, float]:
    """Number of items in all splits, and seconds of sound."""
    from bridle_fairseq.data.audio.decode import read_info

    clips, seconds = 0, 0.0
    for split in splits:
        manifest = Manifest.read(manifests / f"{split}.tsv")
        clips += len(manifest)
        if modality == "audio":
            rates = [read_info(manifest.path(row)).sample_rate for row in range(len(manifest))]
            seconds += float((manifest.sizes / np.array(rates)).sum())
    return clips, seconds


def clips_with_codes(
    model: Bridle, task: MediaTask, manifests: Path, codes_folder: Path, split: str, count: int
) -> list[Example]:
    """Up to ``count`` clips of medium length; of different classes if there are labels."""
    manifest = Manifest.read(manifests / f"{split}.tsv")
    codes = CachedCodes(codes_folder / f"{split}.codes", manifest)
    info = codes.info
    dataset = modality_of(task.cfg).dataset(manifest, task.cfg)
    labels = None
    if (manifests / f"{split}.lbl").exists():
        classes = Classes.read(manifests / "labels.csv")
        labels = Labels.read(manifests / f"{split}.lbl", manifest, classes)
    patches = np.array([len(codes.segment_codes(row, 0)) for row in range(len(manifest))])
    wanted = 0.0
    if "sample_rate" in info.grid:
        wanted = 1.8 * info.grid["sample_rate"] / 160 / info.grid["patch_frames"] * info.grid["frequency_patches"]
    shown: dict[str | int, Example] = {}
    for row in np.argsort(np.abs(patches - wanted), kind="stable").tolist():
        label = labels.classes.names[labels[row][0]] if labels is not None else ""
        source = dataset[row]["source"]
        if len(shown) == count or source is None or patches[row] == 0 or (label or row) in shown:
            continue
        shown[label or row] = example(model, manifest.relative_path(row), label, source, row)
    return list(shown.values())
