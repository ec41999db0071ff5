"""Beam search with a language model, by torchaudio's decoder, which needs flashlight-text and KenLM."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bridle_fairseq.data.manifests.transcripts import WORD_MARKS, Vocabulary
from bridle_fairseq.nn.ctc import BLANK, Emissions
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import


class BeamSearch:
    """A decoder: call it with emissions for the symbols of each clip.

    Args:
        vocabulary: vocabulary of the model.
        beam_size: hypotheses that are kept.
        lm: file of a KenLM language model: over words with a lexicon, else over symbols.
        lexicon: file with a line ``word<TAB>s y m b o l s |`` for each word that may occur; None: any symbols.
        lm_weight: weight of the language model's log-probability.
        word_score: added for each word.

    Raises:
        InputError: no decoder is installed, a beam size below 1, or a file that the decoder cannot use.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        beam_size: int = 50,
        lm: str | None = None,
        lexicon: str | None = None,
        lm_weight: float = 2.0,
        word_score: float = 0.0,
    ) -> None:
        decoder = _load_decoder(lm is not None)
        if beam_size < 1:
            raise InputError(f"--beam-size is {beam_size}; expected 1 or more")
        for name, path in (("--lm", lm), ("--lexicon", lexicon)):
            if path is not None and not os.path.isfile(path):
                raise InputError(f"{name} {path}: no such file; expected one that torchaudio's ctc_decoder reads")
        blank, silence = vocabulary.symbols[BLANK], WORD_MARKS["ltr"]
        if vocabulary.kind != "ltr" or silence not in vocabulary:
            silence = blank
        self._silence = vocabulary.symbols.index(silence)
        try:
            with _listed(vocabulary.symbols) as listed:
                self._decoder = decoder(
                    lexicon=lexicon,
                    tokens=vocabulary.symbols,
                    lm=lm,
                    # without it, torchaudio gives the language model the wrong symbols
                    lm_dict=listed if lm is not None and lexicon is None else None,
                    beam_size=beam_size,
                    lm_weight=lm_weight,
                    word_score=word_score,
                    log_add=True,  # the probability of a transcript is the sum over its paths
                    blank_token=blank,
                    sil_token=silence,
                    unk_word="<unk>",
                )
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            files = " and ".join(filter(None, (lm, lexicon))) or "no files"
            reason = " ".join(str(error).split()).rpartition(" threw ")[2][:160]  # KenLM's source location comes first
            raise InputError(f"torchaudio's ctc_decoder cannot use {files} ({reason})") from None

    def __call__(self, emissions: Emissions) -> list[list[int]]:
        """Numbers of the symbols of each clip's best hypothesis; none if there is no hypothesis."""
        log_probabilities = emissions.logits.log_softmax(2).cpu().contiguous()
        hypotheses = self._decoder(log_probabilities, emissions.lengths.cpu())
        return [self._strip_silence(best[0].tokens.tolist()) if best else [] for best in hypotheses]

    def _strip_silence(self, symbols: list[int]) -> list[int]:
        """The symbols without the silence that the decoder adds at both ends."""
        start = symbols[:1] == [self._silence]
        end = symbols[-2:] == [self._silence] * 2  # a single one ends the last word, as in references
        return symbols[start : len(symbols) - end]


@contextmanager
def _listed(symbols: list[str]) -> Iterator[str]:
    """Path of a temporary file with a line for each symbol."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "symbols.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{symbol}\n" for symbol in symbols)
        yield path


def _load_decoder(with_lm: bool) -> Callable[..., Any]:
    """``torchaudio.models.decoder.ctc_decoder``.

    Raises:
        InputError: torchaudio, flashlight-text or, with a language model, kenlm is not installed.
    """
    with optional_import("beam search needs torchaudio's decoder", "torchaudio flashlight-text kenlm"):
        from torchaudio.models.decoder import ctc_decoder

        if with_lm:
            import kenlm  # noqa: F401
    return ctc_decoder
