"""What commands that run in shards print at their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # keeps --help fast: torch takes seconds to import
    from bridle_fairseq.data.artifacts.shard_run import ShardOutcome


def print_outcome(
    outcome: ShardOutcome, name: str, complete: str, summary_text: Callable[[Any], str], device: str | None = None
) -> None:
    """Print what a process did for a job.

    Args:
        outcome: what it did.
        name: of the split.
        complete: printed if the result was there before.
        summary_text: summary of the complete result -> what it holds.
        device: on which the clips were computed; None: no line about the speed.
    """
    if outcome.was_complete:
        print(complete)
        return
    if device is not None:
        print(outcome.throughput(name, device))
    if outcome.summary is not None:
        print(summary_text(outcome.summary))
    elif outcome.blocks_left is not None:
        shard = outcome.shard
        left = f"{outcome.blocks_left} of {len(outcome.job.blocks)} blocks are left to others"
        print(f"{name}: shard {shard.index} of {shard.count} is done; {left}")
