"""The page's sentences on the differences between encoders."""

from __future__ import annotations

from bridle_fairseq.demo.contents import bars, differences, headline
from bridle_fairseq.demo.media import MEDIA
from bridle_fairseq.demo.probing import Comparison
from bridle_fairseq.evaluation.scores import Difference


def test_differences_are_said_with_their_intervals() -> None:
    untrained, baseline = Difference(0.214, 0.143, 0.283), Difference(-0.02, -0.09, 0.05)
    comparison = Comparison([], 0.8, 0.59, 0.82, untrained, baseline, chance=0.1, test_clips=140, classes=5)
    assert differences(comparison, MEDIA["audio"]) == [
        "Of 100 test clips, the pretrained encoder gets 21 more right than an untrained encoder: with 95 % confidence "
        "between 14 more and 28 more.",
        "Of 100 test clips, the pretrained encoder gets 2 fewer right than the log-mel: with 95 % confidence between "
        "9 fewer and 5 more. These 140 clips do not tell the two apart.",
    ]
    assert differences(None, MEDIA["audio"]) == []


def test_headline_names_the_winner() -> None:
    nothing = Difference(0.0, 0.0, 0.0)
    won = Comparison([], 0.614, 0.36, 0.11, nothing, nothing, chance=0.083, test_clips=192, classes=12)
    assert headline(won, MEDIA["audio"]) == "61 % of the test clips named right, after learning without labels"
    lost = won._replace(baseline=0.7)
    assert headline(lost, MEDIA["audio"]).startswith("This run did not beat the log-mel: 61 %")
    assert headline(None, MEDIA["audio"]) == "A trained encoder and tokenizer"


def test_bars_are_the_three_probes_and_chance() -> None:
    nothing, intervals = Difference(0.0, 0.0, 0.0), {"pretrained": (0.5, 0.7)}
    comparison = Comparison([], 0.6, 0.4, 0.1, nothing, nothing, 0.08, 192, 12, intervals=intervals)
    found = bars(comparison, MEDIA["image"])
    assert [bar.value for bar in found] == [0.6, 0.4, 0.1, 0.08]
    assert found[0].interval == (0.5, 0.7) and found[3].interval is None and "histogram" in found[2].name
    assert bars(None, MEDIA["image"]) == []
