"""What an encoder adds: its probe minus that of an untrained encoder, of a baseline, and of another encoder.

All are tested on the same clips, so the interval of the difference is narrower than the intervals of the two scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bridle_fairseq.evaluation.probe_table import ProbeRow, aligned
from bridle_fairseq.evaluation.scores import Difference, paired_difference

ENCODER, UNTRAINED, AGAINST = "encoder", "untrained", "against"
BASELINE = "baseline"  # statistics of the input: all other sources
OTHERS = (UNTRAINED, BASELINE, AGAINST)


class PairedProbes(NamedTuple):
    """A probe of the encoder and the same probe of something else, on the same clips."""

    probe: str
    first: ProbeRow
    second: ProbeRow
    difference: Difference  # test score of the first minus that of the second

    def fields(self) -> dict[str, Any]:
        """As ``probe.json`` has it."""
        names = {"first": self.first.name, "second": self.second.name}
        return {"probe": self.probe, **names, **self.difference._asdict()}


def best_rows(rows: Sequence[ProbeRow], probe: str) -> dict[str, ProbeRow]:
    """The row of a probe that validates best, the first one at ties: of the encoder, and of each of :data:`OTHERS`."""
    best: dict[str, ProbeRow] = {}
    for row in rows:
        kind = row.features if row.features in (ENCODER, UNTRAINED, AGAINST) else BASELINE
        if row.probe == probe and (kind not in best or row.valid > best[kind].valid):
            best[kind] = row
    return best


def comparisons(rows: Sequence[ProbeRow], multi: bool, resamples: int, seed: int) -> list[PairedProbes]:
    """The encoder, with the pooling that validates best, against each of :data:`OTHERS` with its best pooling.

    Args:
        rows: of all probes and features.
        multi: whether a clip may have several classes.
        resamples, seed: of the bootstrap over test clips.
    """
    found = []
    for probe in dict.fromkeys(row.probe for row in rows):
        best = best_rows(rows, probe)
        for kind in OTHERS:
            if ENCODER not in best or kind not in best:
                continue
            first, second = best[ENCODER], best[kind]
            clips = [len(outcome.scores) for outcome in first.outcomes]
            value = paired_difference(first.outcomes, second.outcomes, multi, resamples, seed, clips)
            found.append(PairedProbes(probe, first, second, value))
    return found


def text(comparisons: Sequence[PairedProbes], metric: str) -> str:
    """The comparisons as a table."""
    lines = [["probe", f"difference of the test {metric} on the same clips", "", "95 % interval"]]
    for comparison in comparisons:
        first, second = (f"{row.features}, {row.pooling}" for row in (comparison.first, comparison.second))
        value, low, high = comparison.difference
        lines.append([comparison.probe, f"{first} - {second}", f"{value:+.3f}", f"{low:+.3f} to {high:+.3f}"])
    return aligned(lines)
