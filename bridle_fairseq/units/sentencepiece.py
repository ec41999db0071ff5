"""SentencePiece models of units ("acoustic BPE": frequent sequences of codes become pieces) and of text.

A line of units is one word of private-use characters (:func:`bridle_fairseq.units.scheme.to_characters`). It is not
normalized, nor split at spaces or scripts, and every character is a piece. So encoding is lossless for any codes.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.units.info import LEVELS, UnitsInfo, check_same_units
from bridle_fairseq.units.scheme import LAYOUTS, to_characters
from bridle_fairseq.utils.bounds import CODEBOOKS, CODES, HASH
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.json_files import read_description
from bridle_fairseq.utils.optional import optional_import
from bridle_fairseq.utils.schema import Mapped, OneOf, Whole

LONGEST_LINE = 4096  # in training; SentencePiece stores positions in a line in 16 bits
MAX_UNITS = 4_000_000  # in training, which needs about 100 bytes of memory per unit
UNKNOWN = 0
VERSION = 1  # of a model's description
DESCRIPTION = Mapped(
    {
        "checkpoint_sha256": HASH,
        "num_codebooks": CODEBOOKS,
        "codebook_size": CODES,
        "level": LEVELS,
        "layout": OneOf(LAYOUTS),
        "version": Whole(VERSION, VERSION),
    }
)
NEED = "pieces of words", "speech"  # for text: what needs sentencepiece, and the extra that installs it


def load_sentencepiece(what: str = "pieces of units", extra: str = "units") -> ModuleType:
    """The module ``sentencepiece``.

    Args:
        what: needs it, for the message.
        extra: extra of the package, which installs it.

    Raises:
        InputError: it is not installed.
    """
    with optional_import(f"{what} need sentencepiece", f"'bridle_fairseq[{extra}]'"):
        import sentencepiece
    return sentencepiece


def train_on_units(lines: Iterable[str], vocab_size: int, num_characters: int, max_units: int = MAX_UNITS) -> bytes:
    """Train a byte-pair model on lines of units; returns the bytes of its file.

    Args:
        lines: a line of characters per clip.
        vocab_size: number of pieces, including every character and the unknown piece; the model has fewer if no other
            sequence is repeated.
        num_characters: number of possible characters; each is a piece, even if it is in no line.
        max_units: number of characters to train on; the rest is ignored.

    Raises:
        InputError: no sentencepiece, no lines, or an impossible vocabulary.
    """
    sentencepiece = load_sentencepiece()
    if vocab_size <= num_characters:
        raise InputError(f"a vocabulary of {vocab_size} pieces; expected more than the {num_characters} codes")
    alphabet = to_characters(np.arange(num_characters))
    sentences = list(_sentences(lines, max_units))
    if not sentences:
        raise InputError("no units to learn pieces from; expected a line of them for each clip")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*sentences, *alphabet]),  # with each character, because unseen ones are dropped
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
            max_sentence_length=4 * LONGEST_LINE + 1,  # bytes; longer lines would be ignored silently
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2] or str(error)
        raise InputError(f"a vocabulary of {vocab_size} pieces: SentencePiece says {reason[:160]!r}") from None
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    missing = [character for character in alphabet if processor.piece_to_id(character) == UNKNOWN]
    if missing:  # SentencePiece computes coverage in 32-bit floating point
        raise InputError(f"{len(missing)} codes became no pieces; expected fewer units to learn from (max_units)")
    return model.getvalue()


def _sentences(lines: Iterable[str], max_units: int) -> Iterator[str]:
    """Lines, split after every :data:`LONGEST_LINE` characters, until they have ``max_units`` characters."""
    left = max_units
    for line in lines:
        for start in range(0, len(line), LONGEST_LINE):
            sentence = line[start : start + min(LONGEST_LINE, left)]
            left -= len(sentence)
            if sentence:
                yield sentence
        if left <= 0:
            return


def load(path: str | os.PathLike[str]) -> Any:
    """Load a model's file as ``SentencePieceProcessor``.

    Raises:
        InputError: no sentencepiece, or not a model.
    """
    load_sentencepiece()
    try:
        model = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: not a model of SentencePiece ({error.strerror or error})") from None
    return _processor(model, os.fspath(path), "units")


def _processor(model: bytes, source: str, trained_on: str, *need: str) -> Any:
    """A model of the bytes of its file; SentencePiece converts a piece to text only when it is asked for."""
    sentencepiece = load_sentencepiece(*need)
    try:
        if not model:  # SentencePiece takes it for no model at all
            raise RuntimeError
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        for number in range(processor.get_piece_size()):
            processor.id_to_piece(number)
    except (RuntimeError, UnicodeDecodeError):
        raise InputError(
            f"{source}: not a model of SentencePiece; expected one that was trained on {trained_on}"
        ) from None
    return processor


def write_description(path: str | os.PathLike[str], info: UnitsInfo) -> None:
    """Write ``{path}.json`` beside a model's file: the identity of the units that it was trained on."""
    with atomic_text(f"{os.fspath(path)}.json") as file:
        json.dump({**info.identity, "version": VERSION}, file, indent=2)
        file.write("\n")


def load_matching(path: str | os.PathLike[str], units: str, info: UnitsInfo) -> Any:
    """Load a model that was trained on units with the same meaning as these.

    The check is needed because the codes of all checkpoints use the same characters.

    Args:
        path: path of the model's file.
        units: path of the description of the units, for messages.
        info: that description.

    Raises:
        InputError: see :func:`load`; or the model has no description, or was trained on other units.
    """
    model = load(path)
    fields = read_description(path, "a model of pieces", VERSION, DESCRIPTION)
    learned = {name: fields[name] for name in info.identity}
    check_same_units(units, info.identity, f"{os.fspath(path)}.json", learned)
    return model


class UnigramCost(NamedTuple):
    """Cost of coding tokens by their frequencies, regardless of their order."""

    tokens: int
    entropy: float  # bits per token, with the frequencies in the same lines
    held_out: float  # bits per token, with the frequencies in other lines


def unigram_cost(counts: np.ndarray, learned: np.ndarray) -> UnigramCost:
    """Cost of lines in which each token occurs ``counts`` times (V), with its frequencies in other lines (V).

    Frequencies are smoothed by Laplace's rule: 1 is added to each count.
    """
    total = int(counts.sum())
    if not total:
        raise InputError("no tokens to measure; expected lines of units")
    share = counts[counts > 0] / total
    smoothed = (learned + 1) / (learned.sum() + len(learned))
    return UnigramCost(
        total, float(-(share * np.log2(share)).sum()), float(-(counts * np.log2(smoothed)).sum() / total)
    )


def train_on_text(texts: Iterable[str], vocab_size: int) -> bytes:
    """Train a unigram model on texts without normalization; returns the bytes of its file.

    The model has fewer than ``vocab_size`` pieces if there are no more.

    Raises:
        InputError: no sentencepiece, or an impossible vocabulary.
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
    """A SentencePiece model that splits text into pieces.

    Args:
        model: the bytes of its file.
        source: that file, for messages.

    Raises:
        InputError: no sentencepiece, or not a model.
    """

    def __init__(self, model: bytes, source: str) -> None:
        self._processor = _processor(model, source, "text", *NEED)

    def __call__(self, text: str) -> list[str]:
        """The pieces of a text; an unknown character is a piece by itself."""
        return self._processor.encode(text, out_type=str)

    def counts(self, texts: Iterable[str]) -> dict[str, int]:
        """All pieces of the model except special ones, with their counts in texts."""
        counts = Counter(piece for text in texts for piece in self(text))
        model = self._processor
        numbers = (n for n in range(model.get_piece_size()) if not (model.is_unknown(n) or model.is_control(n)))
        return {piece: counts[piece] for piece in map(model.id_to_piece, numbers)}
