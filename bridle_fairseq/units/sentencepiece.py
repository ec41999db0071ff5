"""SentencePiece over units: often repeated sequences of codes as one piece each ("acoustic BPE"), without loss.

A line of units is one word of private characters (:func:`bridle_fairseq.units.scheme.to_characters`). SentencePiece
neither normalises it, nor looks for blanks or scripts in it, and every character is a piece: whatever codes come,
encoding and decoding gives them back.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.units.files import UnitsInfo, check_alike, units_summary
from bridle_fairseq.units.scheme import to_characters
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text, fields_of
from bridle_fairseq.utils.optional import optional_import

LONGEST_LINE = 4096  # for training alone; SentencePiece counts positions of a line in 16 bits
MAX_UNITS = 4_000_000  # of training: its memory grows with them, some 100 bytes each
UNKNOWN = 0
VERSION = 1  # of a model's description


def load_sentencepiece(what: str = "pieces of units", extra: str = "units") -> Any:
    """The module ``sentencepiece``; ``what`` needs it, and ``extra`` brings it along.

    Raises:
        InputError: it is not installed.
    """
    with optional_import(f"{what} need sentencepiece", f"'bridle_fairseq[{extra}]'"):
        import sentencepiece
    return sentencepiece


def train(lines: Iterable[str], vocab_size: int, num_characters: int, max_units: int = MAX_UNITS) -> bytes:
    """A byte-pair model of lines of units, as the bytes of its file.

    Args:
        lines: of characters, one a clip; of lines beyond ``max_units`` characters nothing is learned.
        vocab_size: pieces, with every character and the unknown one; fewer where nothing else is repeated.
        num_characters: different ones that there can be; each is a piece, also where no line has it.
        max_units: characters that are looked at.

    Raises:
        InputError: no sentencepiece, no lines, or a vocabulary that cannot be had.
    """
    sentencepiece = load_sentencepiece()
    if vocab_size <= num_characters:
        raise InputError(f"a vocabulary of {vocab_size} pieces; expected more than the {num_characters} codes")
    alphabet = to_characters(np.arange(num_characters))
    stretches = list(_stretches(lines, max_units))
    if not stretches:
        raise InputError("no units to learn pieces from; expected a line of them for each clip")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*stretches, *alphabet]),  # each character once more: unseen ones are dropped
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            byte_fallback=False,
            split_by_unicode_script=False,
            split_by_whitespace=False,
            split_by_number=False,
            split_digits=False,
            unk_id=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            hard_vocab_limit=False,
            max_sentence_length=4 * LONGEST_LINE + 1,  # bytes; longer lines would be left out without a word
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2] or str(error)
        raise InputError(f"a vocabulary of {vocab_size} pieces: SentencePiece says {reason[:160]!r}") from None
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    missing = [character for character in alphabet if processor.piece_to_id(character) == UNKNOWN]
    if missing:  # it counts coverage in 32-bit floating point
        raise InputError(f"{len(missing)} codes became no pieces; expected fewer units to learn from (max_units)")
    return model.getvalue()


def _stretches(lines: Iterable[str], max_units: int) -> Iterator[str]:
    """Lines in pieces of at most :data:`LONGEST_LINE`, as many as have ``max_units`` characters."""
    left = max_units
    for line in lines:
        for start in range(0, len(line), LONGEST_LINE):
            stretch = line[start : start + min(LONGEST_LINE, left)]
            left -= len(stretch)
            if stretch:
                yield stretch
        if left <= 0:
            return


def load(path: str | os.PathLike[str]) -> Any:
    """The ``SentencePieceProcessor`` of a model's file.

    Raises:
        InputError: no sentencepiece, or no such model.
    """
    sentencepiece = load_sentencepiece()
    try:
        return sentencepiece.SentencePieceProcessor(model_file=os.fspath(path))
    except (OSError, RuntimeError):
        raise InputError(f"{path}: not a model of SentencePiece; expected one that was trained on units") from None


def describe(path: str | os.PathLike[str], info: UnitsInfo) -> None:
    """Write ``{path}.json`` beside a model's file: of which units it was trained."""
    with atomic_text(f"{os.fspath(path)}.json") as file:
        json.dump({**units_summary(info), "version": VERSION}, file, indent=2)
        file.write("\n")


def load_for(path: str | os.PathLike[str], units: str, info: UnitsInfo) -> Any:
    """The model at a path, for units that mean what those meant of which it was trained.

    The characters of two checkpoints' codes are the same ones: nothing else would tell them apart.

    Args:
        path: of the model's file.
        units: path of the description of the units, for messages.
        info: that description.

    Raises:
        InputError: see :func:`load`; no description of the model, or it is one of other units.
    """
    model = load(path)
    with fields_of(path, "a model of pieces", VERSION) as fields:
        check_alike(units, units_summary(info), f"{os.fspath(path)}.json", {k: fields[k] for k in units_summary(info)})
    return model


class Cost(NamedTuple):
    """What lines of tokens cost a code that knows how often each token occurs, and nothing of their order."""

    tokens: int
    entropy: float  # bits of a token, by these lines' own frequencies
    held_out: float  # bits of a token, by those of other lines: what coding them takes


def unigram_cost(counts: np.ndarray, learned: np.ndarray) -> Cost:
    """Cost of lines in which each token occurs ``counts`` times, by the frequencies in other lines, ``learned``.

    Both V numbers. Laplace's rule: every token is taken to have occurred once more than it has.
    """
    total = int(counts.sum())
    if not total:
        raise InputError("no tokens to measure; expected lines of units")
    share = counts[counts > 0] / total
    smoothed = (learned + 1) / (learned.sum() + len(learned))
    return Cost(total, float(-(share * np.log2(share)).sum()), float(-(counts * np.log2(smoothed)).sum() / total))


NEED = "pieces of words", "speech"


def train_pieces(texts: Iterable[str], vocab_size: int) -> bytes:
    """A unigram model of texts as they are, as the bytes of its file; fewer pieces where there are no more.

    Raises:
        InputError: no sentencepiece, or a vocabulary that cannot be had.
    """
    model = io.BytesIO()
    try:
        load_sentencepiece(*NEED).SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2] or str(error)
        raise InputError(f"a vocabulary of {vocab_size} pieces: SentencePiece says {reason[:160]!r}") from None
    return model.getvalue()


class Pieces:
    """A SentencePiece model that spells texts.

    Args:
        model: the bytes of its file.
        source: that file, for messages.

    Raises:
        InputError: no sentencepiece, or not a model.
    """

    def __init__(self, model: bytes, source: str) -> None:
        try:
            self._processor = load_sentencepiece(*NEED).SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise InputError(f"{source}: not a model of SentencePiece; expected one that was trained on text") from None

    def __call__(self, text: str) -> list[str]:
        """The pieces of a text; what the model does not know is a piece by itself."""
        return self._processor.encode(text, out_type=str)

    def counts(self, texts: Iterable[str]) -> dict[str, int]:
        """All pieces of the model but its special ones, and how often texts have them."""
        counts = Counter(piece for text in texts for piece in self(text))
        p = self._processor
        numbers = (n for n in range(p.get_piece_size()) if not (p.is_unknown(n) or p.is_control(n)))
        return {p.id_to_piece(n): counts[p.id_to_piece(n)] for n in numbers}
