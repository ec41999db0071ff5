"""Transcripts by beam search with a language model: torchaudio's decoder, which needs flashlight-text and KenLM."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bridle_fairseq.data.manifests.transcripts import WORD_MARKS, Vocabulary
from bridle_fairseq.nn.ctc import BLANK, Emissions
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import


class BeamSearch:
    """Call it with emissions for the symbols of each clip.

    Args:
        vocabulary: of the model.
        beam_size: hypotheses that are kept.
        lm: file of a KenLM language model: over words with a lexicon, else over symbols.
        lexicon: file with a line ``word<TAB>s y m b o l s |`` for each word that may come; None: any symbols may.
        lm_weight: of the language model's log-probability.
        word_score: added for each word.

    Raises:
        InputError: no decoder is installed, or a file that it cannot use.
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
                    # without it, torchaudio mixes up which symbol the language model is asked about
                    lm_dict=listed if lm is not None and lexicon is None else None,
                    beam_size=beam_size,
                    lm_weight=lm_weight,
                    word_score=word_score,
                    log_add=True,  # a transcript's probability is that of all its paths
                    blank_token=blank,
                    sil_token=silence,
                    unk_word="<unk>",
                )
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            files = " and ".join(filter(None, (lm, lexicon))) or "no files"
            reason = " ".join(str(error).split()).rpartition(" threw ")[2][:160]  # KenLM says first where it said so
            raise InputError(f"torchaudio's ctc_decoder cannot use {files} ({reason})") from None

    def __call__(self, emissions: Emissions) -> list[list[int]]:
        """Numbers of the symbols of each clip's best hypothesis; none where there is no hypothesis."""
        log_probabilities = emissions.logits.log_softmax(2).cpu().contiguous()
        found = self._decoder(log_probabilities, emissions.lengths.cpu())
        return [self._said(best[0].tokens.tolist()) if best else [] for best in found]

    def _said(self, symbols: list[int]) -> list[int]:
        """Without the silences with which the decoder begins and ends, where nobody said that a word had ended."""
        start = symbols[:1] == [self._silence]
        end = symbols[-2:] == [self._silence] * 2  # a single one ends the last word, as in references
        return symbols[start : len(symbols) - end]


@contextmanager
def _listed(symbols: list[str]) -> Iterator[str]:
    """A file with a line for each symbol."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "symbols.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{symbol}\n" for symbol in symbols)
        yield path


def _load_decoder(with_lm: bool) -> Any:
    """``torchaudio.models.decoder.ctc_decoder``.

    Raises:
        InputError: torchaudio, flashlight-text or, where it is needed, kenlm is not installed.
    """
    with optional_import("beam search needs torchaudio's decoder", "torchaudio flashlight-text kenlm"):
        from torchaudio.models.decoder import ctc_decoder

        if with_lm:
            import kenlm  # noqa: F401
    return ctc_decoder
