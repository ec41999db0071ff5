"""SentencePiece over the words of transcripts."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable

from bridle_fairseq.units.sentencepiece import load_sentencepiece
from bridle_fairseq.utils.errors import InputError

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
