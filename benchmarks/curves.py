"""Curves of equal_time.py: validation accuracy of the frozen encoder over the CPU time of its pretraining.

    python benchmarks/curves.py WORK/keywords --out docs/recipes_keywords.svg [--recipes recipe vq] [--pooling mean ...]

Each point is a run of its own with its own learning rate schedule: the mean over the seeds of equal --minutes.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

RUN = re.compile(r"(?P<label>.+)-(?P<minutes>[\d.]+)-(?P<seed>\d+)")


def read_points(runs: Path, pooling: str) -> dict[str, list[tuple[float, float]]]:
    """Label of a recipe -> (CPU minutes, accuracy) of its runs, means over the seeds, in order of time."""
    found: dict[tuple[str, str], list[dict]] = {}
    for path in sorted(runs.glob("*/result.json")):
        run = RUN.fullmatch(path.parent.name)
        if run:
            content = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault((run["label"].replace("-", " "), run["minutes"]), []).append(content)
    points: dict[str, list[tuple[float, float]]] = {}
    for (label, _), results in found.items():
        minutes = statistics.mean(result["minutes"] for result in results)
        accuracy = statistics.mean(result["accuracy"][pooling]["valid"] for result in results)
        points.setdefault(label, []).append((minutes, accuracy))
    return {label: sorted(values) for label, values in points.items()}


def draw(work: Path, out: Path, recipes: Sequence[str], poolings: Sequence[str]) -> None:
    """One panel for each pooling, one line for each recipe."""
    matplotlib.rcParams |= {"svg.hashsalt": "bridle", "font.size": 9, "svg.fonttype": "none"}
    figure, axes = pyplot.subplots(1, len(poolings), figsize=(4 * len(poolings), 3), squeeze=False, sharey=True)
    for axis, pooling in zip(axes[0], poolings, strict=True):
        for label, values in read_points(work / "runs", pooling).items():
            if not recipes or label in recipes:
                axis.plot(*zip(*values, strict=True), marker="o", markersize=4, label=label)
        axis.set(title=pooling, xlabel="minutes of one core", xscale="log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3, which="both")
    axes[0][0].set_ylabel("validation accuracy")
    axes[0][-1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", nargs="*", default=[], help="only these")
    parser.add_argument("--pooling", nargs="+", default=["mean", "frequency_statistics"])
    args = parser.parse_args()
    draw(args.work, args.out, args.recipes, args.pooling)


if __name__ == "__main__":
    main()
