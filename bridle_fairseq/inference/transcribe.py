"""A trained transcriber over a data set, and over whole files of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bridle_fairseq.data.manifests.transcripts import Vocabulary
from bridle_fairseq.data.modality import Reader
from bridle_fairseq.inference.beam_search import BeamSearch
from bridle_fairseq.inference.classify import Progress, batches_of, segments_of, unusable_file
from bridle_fairseq.nn.ctc import Emissions, Transcriber, greedy
from bridle_fairseq.utils.errors import InputError

Decode = Callable[[Emissions], list[list[int]]]


@dataclass(frozen=True)
class DecodingOptions:
    """How transcripts are decoded; see :class:`BeamSearch`.

    Attributes:
        beam_size: hypotheses of beam search; None: greedy decoding, which takes the most likely path.
        lm: file of a KenLM language model.
        lexicon: file of the words that may occur.
        lm_weight: weight of the language model's log-probability.
        word_score: added for each word.
    """

    beam_size: int | None = None
    lm: str | None = None
    lexicon: str | None = None
    lm_weight: float = 2.0
    word_score: float = 0.0

    def refuse(self) -> None:
        """Refuse these options for a model that does not transcribe.

        Raises:
            InputError: one is set.
        """
        for name in ("beam_size", "lm", "lexicon"):
            if getattr(self, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise InputError(
                    f"{option} {getattr(self, name)} with a classifier; expected none: it is for transcripts"
                )


def decoder_of(options: DecodingOptions, vocabulary: Vocabulary) -> Decode:
    """The decoder that the options describe.

    Raises:
        InputError: a language model without a beam size, or as :class:`BeamSearch`.
    """
    if options.beam_size is None:
        if options.lm or options.lexicon:
            raise InputError("--lm or --lexicon without --beam-size; expected --beam-size 50, say")
        return greedy
    return BeamSearch(vocabulary, options.beam_size, options.lm, options.lexicon, options.lm_weight, options.word_score)


@torch.inference_mode()
def transcribe_dataset(
    model: Transcriber, dataset: Any, batch_size: int, workers: int, decode: Decode = greedy, progress: Progress = iter
) -> dict[int, list[int]]:
    """Symbols of each clip of a data set by its row, in order; clips that cannot be read are left out.

    Args:
        model: in eval mode, on its device.
        dataset: a :class:`bridle_fairseq.tasks.datasets.FairseqMedia` that is not training.
        batch_size: clips of a batch.
        workers: processes that read files.
        decode: emissions -> symbols of each clip.
        progress: wraps the iterable of batches.
    """
    symbols: dict[int, list[int]] = {}
    for rows, source, mask in batches_of(model, dataset, batch_size, workers, progress):
        symbols |= zip(rows.tolist(), decode(model(source, mask)), strict=True)
    return dict(sorted(symbols.items()))


@torch.inference_mode()
def transcribe_file(model: Transcriber, reader: Reader, path: str, segment: int, decode: Decode = greedy) -> list[int]:
    """Symbols of a file; a file longer than ``segment`` goes through the model segment by segment.

    Args:
        model: in eval mode, on its device.
        reader: reader of files as the model takes them.
        path: a file.
        segment: the longest stretch that the model takes at once, in samples at its rate.
        decode: emissions -> symbols of each clip.

    Raises:
        DecodeError: the file cannot be used.
    """
    logits = []
    for _, source, mask in segments_of(model, reader, path, segment):
        emissions = model(source, mask)
        logits += [row[:length] for row, length in zip(emissions.logits, emissions.lengths.tolist(), strict=True)]
    whole = torch.cat(logits)[None]  # 1 x frames x symbols
    (symbols,) = decode(Emissions(whole, torch.tensor([whole.shape[1]], device=whole.device)))
    return symbols


def transcribe_files(
    model: Transcriber,
    reader: Reader,
    paths: Sequence[str],
    segment: int,
    vocabulary: Vocabulary,
    options: DecodingOptions,
) -> Iterator[tuple[str, str | InputError]]:
    """(path, text) of files, one after the other; in place of a text, why a file cannot be used.

    Args:
        model, reader, segment: see :func:`transcribe_file`.
        paths: paths of the files.
        vocabulary: vocabulary of the model.
        options: how transcripts are decoded.

    Raises:
        InputError: as :func:`decoder_of`.
    """
    decode = decoder_of(options, vocabulary)
    for path in paths:
        result: str | InputError
        try:
            with unusable_file(path, "sound files"):
                result = vocabulary.text(transcribe_file(model, reader, path, segment, decode))
        except InputError as error:
            result = error
        yield path, result
