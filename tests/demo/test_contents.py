"""The page's sentences on the differences between encoders."""

from __future__ import annotations

from bridle_fairseq.demo.contents import differences
from bridle_fairseq.demo.media import MEDIA
from bridle_fairseq.demo.probing import Comparison
from bridle_fairseq.evaluation.scores import Difference


def test_differences_are_said_with_their_intervals() -> None:
    untrained, baseline = Difference(0.214, 0.143, 0.283), Difference(-0.02, -0.09, 0.05)
    comparison = Comparison([], 0.8, 0.59, 0.82, untrained, baseline, chance=0.1, test_clips=140, classes=5)
    assert differences(comparison, MEDIA["audio"]) == [
        "Of the same 140 test clips, the pretrained encoder gets 21 % more right than an untrained encoder: with 95 % "
        "confidence between 14 % more and 28 % more.",
        "Of the same 140 test clips, the pretrained encoder gets 2 % fewer right than the log-mel: with 95 % "
        "confidence between 9 % fewer and 5 % more. These 140 clips do not tell the two apart.",
    ]
    assert differences(None, MEDIA["audio"]) == []
