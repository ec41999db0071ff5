"""What an attack tried and what it found."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = ("lost", "executed", "leaked", "outside", "traceback", "hang", "memory")  # all of these must be 0
DIFFERENT_FINDINGS = 10  # of one attack are saved by one worker


@dataclass
class Problem:
    """Something that must not happen: one of COLUMNS, what was seen, and the files that show it."""

    column: str
    text: str
    files: list[Path] = field(default_factory=list)


@dataclass
class Result:
    """Of one attempt.

    Attributes:
        tried: what was done, and how often; the first name is the attack's own unit.
        problems: what was found.
        megabytes: most memory of a reader, over its base.
    """

    tried: Counter = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    megabytes: float = 0.0

    def add(self, column, text, *files):
        self.problems.append(Problem(column, text, [Path(file) for file in files]))

    def check_log(self, log, start=0):
        """Note a traceback in a log, of which the first ``start`` characters are known."""
        text = log.read_text(errors="replace")[start:] if log.exists() else ""
        if "Traceback (most recent call last)" in text:
            self.add("traceback", text[text.index("Traceback (most") :][:6000], log)


class Tally:
    """Totals of one attack in one worker; findings are saved as they come."""

    def __init__(self, name, findings):
        self.name, self.findings = name, findings
        self.tried, self.columns, self.megabytes, self.known = Counter(), Counter(), 0.0, set()

    def add(self, result, seed, number):
        self.tried += result.tried
        self.megabytes = max(self.megabytes, result.megabytes)
        self.columns += Counter(problem.column for problem in result.problems)
        for problem in result.problems:
            key = (problem.column, problem.text.strip().splitlines()[-1][:60] if problem.text.strip() else "")
            if key not in self.known and len(self.known) < DIFFERENT_FINDINGS:
                self.known.add(key)
                self._save(problem, seed, number)

    def _save(self, problem, seed, number):
        folder = self.findings / f"{self.name}-{seed}-{number}-{problem.column}"
        folder.mkdir(parents=True, exist_ok=True)
        again = f".venv/bin/python tests/soak --seed {seed} --only {self.name} --number {number}"
        (folder / "finding.txt").write_text(f"{problem.column}\nto run it again: {again}\n\n{problem.text}\n")
        for file in problem.files:
            if file.is_dir():
                shutil.copytree(file, folder / file.name, dirs_exist_ok=True)
            elif file.exists():
                shutil.copy(file, folder)

    def record(self):
        """As a line of JSON."""
        values = {"name": self.name, "tried": self.tried, "columns": self.columns, "megabytes": self.megabytes}
        return json.dumps(values)


def merge(lines):
    """Records of all workers -> name of the attack -> (tried, columns, megabytes); the last record of each counts."""
    totals = {}
    for records in lines:
        for record in {record["name"]: record for record in map(json.loads, records)}.values():
            tried, columns, megabytes = totals.get(record["name"], (Counter(), Counter(), 0.0))
            tried.update(record["tried"])
            columns.update(record["columns"])
            totals[record["name"]] = (tried, columns, max(megabytes, record["megabytes"]))
    return totals


def table(totals):
    """The totals as a table in Markdown."""
    rows = [("attack", "tried", *COLUMNS, "most memory")]
    for name, (tried, columns, megabytes) in totals.items():
        what = ", ".join(f"{count} {unit}" for unit, count in tried.items())
        rows.append(
            (name, what, *(str(columns[column]) for column in COLUMNS), f"{megabytes:.0f} MB" * (megabytes > 0))
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
