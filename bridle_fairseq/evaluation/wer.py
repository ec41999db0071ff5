"""Word and character error rates of transcripts, as jiwer counts edits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.optional import optional_import
from bridle_fairseq.utils.spreadsheet import write_table


class EditCounts(NamedTuple):
    """Edits between hypotheses and references."""

    edits: int  # insertions, deletions and substitutions
    length: int  # of the references

    @property
    def rate(self) -> float:
        """Edits per unit of the reference: 0 is perfect; it can exceed 1."""
        return self.edits / max(self.length, 1)


def load_jiwer() -> ModuleType:
    """The module ``jiwer``.

    Raises:
        InputError: it is not installed.
    """
    with optional_import("word error rates need jiwer", "'bridle_fairseq[speech]'"):
        import jiwer
    return jiwer


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> EditCounts:
    """Edits of space-separated units: words, or the symbols of a line of symbols. References must not be empty."""
    return _edit_counts(load_jiwer().process_words(list(references), list(hypotheses)))


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> EditCounts:
    """Edits of characters, including spaces. References must not be empty."""
    return _edit_counts(load_jiwer().process_characters(list(references), list(hypotheses)))


def _edit_counts(output: Any) -> EditCounts:
    wrong = output.substitutions + output.deletions
    return EditCounts(wrong + output.insertions, output.hits + wrong)


def write_transcripts(
    folder: str | os.PathLike[str],
    name: str,
    manifest: Manifest,
    rows: Sequence[int],
    references: Sequence[str],
    hypotheses: Sequence[str],
) -> str:
    """Write ``{name}.transcripts.csv``: each clip's reference, hypothesis and edits; its path."""
    path = os.path.join(folder, f"{name}.transcripts.csv")
    header = ["row", "path", "reference", "hypothesis", "words", "word_edits", "characters", "character_edits"]

    def line(row: int, reference: str, hypothesis: str) -> list[object]:
        words, characters = (count([reference], [hypothesis]) for count in (word_errors, character_errors))
        numbers = [words.length, words.edits, characters.length, characters.edits]
        return [row, manifest.relative_path(row), reference, hypothesis, *numbers]

    write_table(path, [header, *map(line, rows, references, hypotheses)])
    return path
