"""The interleaved schedule: the stage and the learning rate of each update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from bridle_fairseq.utils.errors import InputError

KINDS = ("encoder", "tokenizer", "joint")
TARGETS = ("auto", "projection", "tokenizer")


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        kind: what learns: ``encoder`` (and decoder), ``tokenizer`` (with quantizer and estimator) or ``joint`` (both).
        updates: number of optimizer updates.
        lr: peak learning rate; None: ``optimization.lr``.
        warmup_updates: updates of linear warm-up; a cosine to 0 follows.
        targets: codes that an encoder stage predicts: of the cold start's random ``projection``, of the ``tokenizer``,
            or ``auto``: of what the codebooks quantize already. That is the projection in a new model, the tokenizer
            after a stage that trained it, and the projection again after a stage with ``targets: projection``.
        tokenizer_every: joint only: the tokenizer's loss is added in every n-th update.
        tokenizer_weight: joint only: weight of the tokenizer's loss.
    """

    kind: str
    updates: int
    lr: float | None = None
    warmup_updates: int = 0
    targets: str = "auto"
    tokenizer_every: int = 4
    tokenizer_weight: float = 0.2

    @property
    def trains_encoder(self) -> bool:
        """Whether encoder and decoder learn."""
        return self.kind != "tokenizer"

    @property
    def trains_tokenizer(self) -> bool:
        """Whether tokenizer, quantizer and estimator learn."""
        return self.kind != "encoder"


class Schedule:
    """The stages of a run.

    Args:
        stages: mappings with the fields of :class:`Stage`.

    Attributes:
        stages: the parsed stages.
        starts: number of the first update of each stage, from 0.
        total_updates: updates of all stages.

    Raises:
        InputError: the list is empty, or a stage has an unknown field or an impossible value.
    """

    def __init__(self, stages: Iterable[Mapping[str, Any]]) -> None:
        if isinstance(stages, str) or not isinstance(stages, Iterable):
            raise InputError(f"model.stages is {stages!r}; expected a list of {{kind: .., updates: ..}}")
        self.stages = tuple(_parse(i, stage) for i, stage in enumerate(stages))
        if not self.stages:
            raise InputError(
                "model.stages is empty; expected a list with at least one stage, such as {kind: encoder, updates: 1000}"
            )
        self.starts = tuple(sum(s.updates for s in self.stages[:i]) for i in range(len(self.stages)))
        self.total_updates = sum(s.updates for s in self.stages)

    def index_at(self, num_updates: int) -> int:
        """Index of the stage of update ``num_updates`` (from 0); after the end, that of the last stage."""
        return max(i for i, start in enumerate(self.starts) if start <= max(num_updates, 0))

    def learning_rate(self, num_updates: int, default_lr: float) -> float:
        """Learning rate of update ``num_updates`` (from 0): linear warm-up, then half a cosine to 0."""
        index = self.index_at(num_updates)
        stage, position = self.stages[index], num_updates - self.starts[index]
        peak = default_lr if stage.lr is None else stage.lr
        if position < stage.warmup_updates:
            return peak * (position + 1) / stage.warmup_updates
        progress = (position - stage.warmup_updates) / max(1, stage.updates - stage.warmup_updates)
        return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _parse(index: int, values: Any) -> Stage:
    """Stage number ``index`` of the list, checked."""
    where = f"model.stages[{index}]"
    if not isinstance(values, Mapping):
        raise InputError(f"{where} is {values!r}; expected {{kind: .., updates: ..}}")
    known = {f.name for f in fields(Stage)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{where} has the unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    missing = [name for name in ("kind", "updates") if values.get(name) is None]
    if missing:
        raise InputError(f"{where} has no {missing[0]!r}; a stage needs kind and updates")
    try:
        stage = Stage(
            kind=str(values["kind"]),
            updates=int(values["updates"]),
            lr=None if values.get("lr") is None else float(values["lr"]),
            warmup_updates=int(values.get("warmup_updates", 0)),
            targets=str(values.get("targets", "auto")),
            tokenizer_every=int(values.get("tokenizer_every", 4)),
            tokenizer_weight=float(values.get("tokenizer_weight", 0.2)),
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} has a value that is no number: {error}") from error
    checks = [
        (stage.kind in KINDS, f"kind {stage.kind!r}; expected one of {', '.join(KINDS)}"),
        (stage.targets in TARGETS, f"targets {stage.targets!r}; expected one of {', '.join(TARGETS)}"),
        (stage.updates > 0, f"{stage.updates} updates; expected at least 1"),
        (stage.lr is None or stage.lr > 0, f"lr {stage.lr}; expected more than 0"),
        (
            0 <= stage.warmup_updates <= stage.updates,
            f"{stage.warmup_updates} warmup_updates; expected 0 to its {stage.updates} updates",
        ),
        (stage.tokenizer_every > 0, f"tokenizer_every {stage.tokenizer_every}; expected at least 1"),
    ]
    for holds, message in checks:
        if not holds:
            raise InputError(f"{where} has {message}")
    return stage
