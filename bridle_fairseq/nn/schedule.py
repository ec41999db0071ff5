"""The interleaved schedule: the stage and the learning rate of each update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.schema import OneOf, Real, Whole, check, described, kinds_of, record_of, shown

MOST_STAGES, UPDATES = 10_000, Whole(1, 10**12)  # more than any run; a file can ask for any number


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

    kind: str = described(OneOf(("encoder", "tokenizer", "joint")))
    updates: int = described(UPDATES)
    lr: float | None = described(Real(0, 1e300, above=True), default=None)
    warmup_updates: int = described(Whole(0, UPDATES.high), default=0)
    targets: str = described(OneOf(("auto", "projection", "tokenizer")), default="auto")
    tokenizer_every: int = described(UPDATES, default=4)
    tokenizer_weight: float = described(Real(0, 1e6), default=0.2)

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


_STAGE = record_of(Stage)
_WHOLE = {name for name, kind in kinds_of(Stage).items() if isinstance(kind, Whole)}


def _parse(index: int, values: Any) -> Stage:
    """Stage number ``index`` of the list, checked."""
    where = f"model.stages[{index}]"
    if isinstance(values, Mapping):  # null is the default, and YAML reads 1e5 as a float
        values = {
            name: int(value) if name in _WHOLE and type(value) is float and value.is_integer() else value
            for name, value in values.items()
            if value is not None or name not in _STAGE.optional
        }
    check(_STAGE, where, values)
    stage = Stage(**values)
    if stage.warmup_updates > stage.updates:
        raise InputError(
            f"{where}.warmup_updates is {stage.warmup_updates}; expected at most the stage's {stage.updates} updates"
        )
    return stage
