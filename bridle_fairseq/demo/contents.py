"""Texts and numbers of the demo's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.demo.media import Media
from bridle_fairseq.demo.probing import Comparison
from bridle_fairseq.demo.report import Bar
from bridle_fairseq.evaluation.scores import Difference
from bridle_fairseq.report.examples import Map


def headline(comparison: Comparison | None, media: Media) -> str:
    """The result in one sentence, whoever won."""
    if comparison is None:
        return "A trained encoder and tokenizer"
    mine = percent(comparison.pretrained)
    best = max(comparison.untrained, comparison.baseline)
    if comparison.pretrained > best:
        return f"{mine} of the test {media.one}s named right, after learning without labels"
    who = "the untrained encoder" if comparison.untrained >= comparison.baseline else f"the {media.baseline}"
    return f"This run did not beat {who}: {mine} of the test {media.one}s named right, against {percent(best)}"


def summary(comparison: Comparison | None, media: Media, synthetic: bool) -> str:
    """What was compared."""
    what = media.made if synthetic else f"your {media.many}"
    if comparison is None:
        return f"Pretrained without labels on {what}, then turned into codes."
    return (
        f"{comparison.classes} classes of {what}. The encoder learned without labels. Then a linear classifier learned "
        f"to name the class from the encoder's features, and was tested on {comparison.test_clips} other {media.one}s."
    )


def bars(comparison: Comparison | None, media: Media) -> list[Bar]:
    """The accuracies that the page compares."""
    if comparison is None:
        return []
    found = [
        Bar(name, getattr(comparison, field), comparison.intervals.get(field))
        for name, field in (
            ("pretrained encoder", "pretrained"),
            ("the same encoder, untrained", "untrained"),
            (f"{media.baseline}, no encoder", "baseline"),
        )
    ]
    return [*found, Bar("always the most frequent class", comparison.chance, None)]


def named_maps(comparison: Comparison | None, maps: Mapping[str, Map], media: Media) -> list[tuple[str, float, Map]]:
    """Title, accuracy and points of each map."""
    names = {"pretrained": "Pretrained encoder", "baseline": f"{media.baseline}, no encoder"}
    return [(names[field], getattr(comparison, field), points) for field, points in maps.items()]


def percent(share: float) -> str:
    """A share for readers: 0.614 -> ``61 %``."""
    return f"{100 * share:.0f} %"


def table_note(comparison: Comparison | None) -> str:
    """Note on the table of results."""
    if comparison is None:
        return (
            "No labels were given, so there is nothing to probe. Run the demo with --labels CSV (columns file, label)."
        )
    return (
        "The classifiers are linear (ridge regression) on standardized features. Pooling, layer and regularization "
        "were chosen on validation clips alone. Thin lines: 95 % intervals over the test clips."
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
        f"Of 100 test {one}s, the pretrained encoder gets {_more(value)} right than {name}: with 95 % confidence "
        f"between {_more(low)} and {_more(high)}.{told}"
    )


def _more(share: float) -> str:
    return f"{abs(100 * share):.0f} {'fewer' if share < 0 else 'more'}"


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
