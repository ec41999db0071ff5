"""The one runner of ``fairseq-hydra-train``: its command line, its process, its log, and why it failed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bridle_fairseq.training.log import Record, last_error, parse_line
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.packaged import PACKAGE
from bridle_fairseq.utils.process import ending_with_parent

_UNQUOTED = re.compile(r"[A-Za-z0-9_/.+%@-]+")


def find_script() -> str:
    """Path of fairseq-hydra-train: beside this Python, else on the PATH.

    Raises:
        InputError: there is none.
        ModuleNotFoundError: fairseq is not installed.
    """
    if find_spec("fairseq") is None:  # a script on the PATH would be that of another environment
        raise ModuleNotFoundError("No module named 'fairseq'", name="fairseq")
    beside = Path(sys.executable).with_name("fairseq-hydra-train")
    script = str(beside) if beside.exists() else shutil.which("fairseq-hydra-train")
    if script is None:
        raise InputError(
            "fairseq-hydra-train was not found beside this Python, nor on the PATH; expected that of fairseq"
        )
    return script


def shown(command: Sequence[str]) -> str:
    """A command line for a shell: its options on the first line, and each override on a line of its own."""
    first = next((at for at, text in enumerate(command) if "=" in text), len(command))
    return " \\\n  ".join([" ".join(map(_quoted, command[:first])), *map(_quoted, command[first:])])


def _quoted(text: str) -> str:
    if "'" in text and not any(character in text for character in '"$`\\!'):
        return f'"{text}"'
    return shlex.quote(text)


def override(name: str, value: object) -> str:
    """An override ``name=value`` of the configuration, in quotes if hydra requires them.

    Raises:
        InputError: hydra has no way to write the value, or would replace a part of it.
    """
    text = str(value)
    if "${" in text or "\\'" in text or text.endswith("\\") or not text.isprintable():
        expected = "no ${ and \\' in it, no \\ at its end, and printable characters"
        raise InputError(f"{text!r} for {name} of the configuration; expected {expected}: rename the folder")
    if not _UNQUOTED.fullmatch(text):
        text = "'" + text.replace("'", "\\'") + "'"
    return f"{name}={text}"


@dataclass(frozen=True)
class TrainingRun:
    """A training run in a process of its own. A run that was stopped resumes from its last checkpoint.

    Attributes:
        config_dir, config_name: the configuration, as fairseq-hydra-train takes it.
        save_dir: folder of the checkpoints.
        hydra_dir: folder of hydra's log and of its copy of the configuration.
        overrides: overrides of the configuration, such as ``optimization.max_update=100``; last on the command line.
        name: name of the run in error messages.
        cpu: train on the CPU, even if there is a GPU.
        threads: OMP_NUM_THREADS of the process; None: inherited.
    """

    config_dir: Path
    config_name: str
    save_dir: Path
    hydra_dir: Path
    overrides: Sequence[str] = ()
    name: str = "training"
    cpu: bool = False
    threads: int | None = None

    def command(self) -> list[str]:
        """The command line.

        Raises:
            InputError: fairseq-hydra-train or the folder of the configuration is missing.
        """
        script = find_script()
        if not self.config_dir.is_dir():
            raise InputError(f"{self.config_dir}: no such folder; expected one with configurations")
        return [
            script,
            *("--config-dir", str(self.config_dir), "--config-name", self.config_name),
            override("common.user_dir", PACKAGE),
            *(["common.cpu=true"] if self.cpu else []),
            override("checkpoint.save_dir", self.save_dir),
            override("hydra.run.dir", self.hydra_dir),
            *self.overrides,
        ]

    def run(
        self,
        log: Path,
        on_record: Callable[[Record], object] = lambda record: None,
        on_line: Callable[[str], object] = lambda line: None,
    ) -> None:
        """Train to the end.

        Args:
            log: the output of the process is appended to this file.
            on_record: called with each record as soon as it is logged.
            on_line: called with each line of the output that is no record.

        Raises:
            InputError: training failed; gives its last error and the log.
        """
        command = self.command()
        environment = None if self.threads is None else {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(log, "a", encoding="utf-8", buffering=1) as file:  # a killed process leaves a whole log
                code = _run_and_listen(command, environment, file.write, on_record, on_line)
        except OSError as error:
            error.filename = error.filename or os.fspath(log)  # a failed write has no name
            raise
        if code != 0:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise InputError(f"{self.name} failed: {last_error(lines)} (full log: {log})")


def _run_and_listen(
    command: Sequence[str],
    environment: dict[str, str] | None,
    write: Callable[[str], object],
    on_record: Callable[[Record], object],
    on_line: Callable[[str], object],
) -> int:
    """Run a command and read its output line by line; its exit code."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
        preexec_fn=ending_with_parent(),
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            write(line)
            record = parse_line(line)
            if record is None:
                on_line(line)
            else:
                on_record(record)
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
