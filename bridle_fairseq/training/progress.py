"""A training run as a progress bar: its updates, stage, loss and accuracy. Warnings of its log are printed above it."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

from bridle_fairseq.training.launch import TrainingRun
from bridle_fairseq.training.log import Record, read_log
from bridle_fairseq.utils.progress import bar_size

_WARNING = re.compile(r"\[(?:WARNING|ERROR)\] - (.+)$")
# The speed is last: it is what a narrow terminal cuts off.
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}, {rate_fmt}]"
# value -> its name in the bar
SHOWN = {"loss": "loss", "acc_1": "accuracy", "accuracy": "accuracy", "cosine": "cosine"}


def train_with_bar(run: TrainingRun, log_path: Path, total_updates: int | None) -> list[Record]:
    """Train to the end with a progress bar; all records of the log, those of earlier runs included.

    Args:
        run: the run.
        log_path: gets its output.
        total_updates: length of the run; None: not known, and no time is estimated.

    Raises:
        InputError: training failed; gives its last error and the log.
    """
    from tqdm import tqdm

    options = {
        "unit": " updates",
        "desc": run.name,
        "mininterval": 0.2 if sys.stderr.isatty() else 20.0,
        "leave": False,
    }
    shown: set[str] = set()
    if total_updates is not None:
        options["bar_format"] = BAR
    with tqdm(total=total_updates, **options, **bar_size()) as bar:

        def show(record: Record) -> None:
            if record.split != "train":
                return
            if bar.n == 0:  # the speed is that of this process, without its start and without earlier ones
                bar.initial = bar.n = bar.last_print_n = record.update
                bar.start_t = bar.last_print_t = time.time()
            bar.set_postfix_str(progress_text(record), refresh=False)
            bar.update(record.update - bar.n)

        def warn(line: str) -> None:
            found = _WARNING.search(line)
            if found and found[1] not in shown:
                shown.add(found[1])
                bar.write(f"{run.name}: {found[1]}", file=sys.stderr)

        run.run(log_path, show, warn)
        bar.leave = bar.n > 0  # a run that was finished already logs nothing
    return read_log(log_path)


def progress_text(record: Record) -> str:
    """Stage, loss and accuracy of a record; what it does not have is left out."""
    values = {text: f"{text} {record.values[name]:.3g}" for name, text in SHOWN.items() if name in record.values}
    stage = [f"stage {record.values['stage']:.0f}"] if "stage" in record.values else []
    return ", ".join([*stage, *values.values()])
