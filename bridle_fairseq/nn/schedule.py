"""The interleaved schedule: the stage and the learning rate of each update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.schema import shown

MOST_STAGES, MOST_UPDATES = 10_000, 10**12  # more than any run; a file can ask for any number
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
        if isinstance(stages, (str, Mapping)) or not isinstance(stages, Iterable):
            raise InputError(f"model.stages is {shown(stages)}; expected a list of {{kind: .., updates: ..}}")
        stages = list(stages)
        if len(stages) > MOST_STAGES:
            raise InputError(f"model.stages has {len(stages)} stages; expected at most {MOST_STAGES}")
        self.stages = tuple(_parse(i, stage) for i, stage in enumerate(stages))
        if not self.stages:
            raise InputError(
                "model.stages is empty; expected a list with at least one stage, such as {kind: encoder, updates: 1000}"
            )
        *starts, self.total_updates = accumulate((stage.updates for stage in self.stages), initial=0)
        self.starts = tuple(starts)

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
        raise InputError(f"{where} is {shown(values)}; expected {{kind: .., updates: ..}}")
    known = {f.name for f in fields(Stage)}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise InputError(f"{where} has the unknown field {shown(unknown[0])}; known are {', '.join(sorted(known))}")
    missing = [name for name in ("kind", "updates") if values.get(name) is None]
    if missing:
        raise InputError(f"{where} has no {missing[0]!r}; a stage needs kind and updates")
    try:
        stage = Stage(
            kind=_text(values["kind"]),
            updates=int(values["updates"]),
            lr=None if values.get("lr") is None else float(values["lr"]),
            warmup_updates=int(values.get("warmup_updates", 0)),
            targets=_text(values.get("targets", "auto")),
            tokenizer_every=int(values.get("tokenizer_every", 4)),
            tokenizer_weight=float(values.get("tokenizer_weight", 0.2)),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} has a value that is no number: {str(error)[:120]}") from error
    checks = [
        (stage.kind in KINDS, f"kind {shown(stage.kind)}; expected one of {', '.join(KINDS)}"),
        (stage.targets in TARGETS, f"targets {shown(stage.targets)}; expected one of {', '.join(TARGETS)}"),
        (stage.updates > 0, f"{shown(stage.updates)} updates; expected at least 1"),
        (stage.updates <= MOST_UPDATES, f"{shown(stage.updates)} updates; expected at most {MOST_UPDATES}"),
        (stage.lr is None or 0 < stage.lr < math.inf, f"lr {stage.lr}; expected more than 0"),
        (
            0 <= stage.warmup_updates <= stage.updates,
            f"{shown(stage.warmup_updates)} warmup_updates; expected 0 to its {shown(stage.updates)} updates",
        ),
        (stage.tokenizer_every > 0, f"tokenizer_every {shown(stage.tokenizer_every)}; expected at least 1"),
        (math.isfinite(stage.tokenizer_weight), f"tokenizer_weight {stage.tokenizer_weight}; expected a finite number"),
    ]
    for holds, message in checks:
        if not holds:
            raise InputError(f"{where} has {message}")
    return stage


def _text(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)
