"""How far transcripts are from references: edits and lengths as jiwer counts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bridle_fairseq.utils.optional import optional_import


class Errors(NamedTuple):
    """Insertions, deletions and substitutions, and how much there was to be right."""

    edits: int
    length: int

    @property
    def rate(self) -> float:
        """Edits a unit of the reference: 0 is perfect, and it may be above 1."""
        return self.edits / max(self.length, 1)


def load_jiwer() -> Any:
    """The module ``jiwer``.

    Raises:
        InputError: it is not installed.
    """
    with optional_import("word error rates need jiwer", "'bridle_fairseq[speech]'"):
        import jiwer
    return jiwer


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> Errors:
    """Of what stands between spaces: words, or the symbols of a line of symbols. References are not empty."""
    found = load_jiwer().process_words(list(references), list(hypotheses))
    return _errors(found)


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> Errors:
    """Of characters, spaces among them. References are not empty."""
    return _errors(load_jiwer().process_characters(list(references), list(hypotheses)))


def _errors(found: Any) -> Errors:
    wrong = found.substitutions + found.deletions
    return Errors(wrong + found.insertions, found.hits + wrong)
