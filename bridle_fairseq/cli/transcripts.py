"""``bridle evaluate`` and ``bridle predict`` of a model that transcribes: arguments, error rates, the table."""

from __future__ import annotations

import argparse
import csv
import os
from typing import Any

from bridle_fairseq.utils.errors import DecodeError, InputError


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    """How transcripts are found."""
    group = parser.add_argument_group("transcripts (model 'bridle_ctc')")
    group.add_argument("--beam-size", type=int, metavar="N", help="beam search; without it the likeliest path")
    group.add_argument("--lm", metavar="FILE", help="KenLM language model: of words with --lexicon, else of symbols")
    group.add_argument("--lexicon", metavar="FILE", help="word<TAB>symbols of each word that may come")
    group.add_argument("--lm-weight", type=float, default=2.0, metavar="X", help="of the language model (%(default)s)")
    group.add_argument("--word-score", type=float, default=0.0, metavar="X", help="for each word (%(default)s)")


def decoder_of(args: argparse.Namespace, vocabulary: Any) -> Any:
    """What finds transcripts in emissions, as the arguments say.

    Raises:
        InputError: a language model without ``--beam-size``, or as :class:`BeamSearch` does.
    """
    if args.beam_size is None:
        from bridle_fairseq.nn.ctc import greedy

        if args.lm or args.lexicon:
            raise InputError("--lm or --lexicon without --beam-size; expected --beam-size 50, say")
        return greedy
    from bridle_fairseq.inference.beam_search import BeamSearch

    return BeamSearch(vocabulary, args.beam_size, args.lm, args.lexicon, args.lm_weight, args.word_score)


def refuse_decoding(args: argparse.Namespace) -> None:
    """Refuse the arguments of :func:`add_decoding_arguments` for a model that does not transcribe."""
    for name in ("beam_size", "lm", "lexicon"):
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} {getattr(args, name)} with a classifier; expected none: it is for transcripts")


def evaluate_transcripts(
    args: argparse.Namespace, manifest: Any, model: Any, task: Any, folder: str, split: str, progress: Any
) -> int:
    """Print error rates, and write ``{split}.transcripts.csv``.

    Clips count whose transcript no path of the model's frames can spell: the model errs there.

    Raises:
        InputError: transcripts that cannot be used, or clips that cannot be read.
    """
    from bridle_fairseq.data.manifests.skipped import SkipLog
    from bridle_fairseq.data.manifests.transcripts import Transcripts
    from bridle_fairseq.data.modalities import modality_of
    from bridle_fairseq.evaluation.wer import character_errors, load_jiwer, word_errors
    from bridle_fairseq.inference.transcribe import transcribe_dataset
    from bridle_fairseq.tasks.datasets import TranscribedMedia

    load_jiwer()
    vocabulary = task.vocabulary
    vocabulary.source = args.checkpoint
    decode = decoder_of(args, vocabulary)
    path = args.labels or f"{args.manifest.removesuffix('.tsv')}.{vocabulary.kind}"
    transcripts = Transcripts.read(path, manifest, vocabulary)
    skips = SkipLog(manifest, os.path.join(folder, f"{split}.skipped.tsv"))
    media = modality_of(task.cfg).dataset(manifest, task.cfg, skips=skips, whole=True)
    dataset = TranscribedMedia(media, transcripts=transcripts)
    found = transcribe_dataset(model, dataset, args.batch_size, args.workers, decode, progress)
    skips.check(args.max_skipped)
    if not found:
        raise InputError(f"{args.manifest}: no clip could be read; expected one at least")
    references = {row: transcripts[row].tolist() for row in found}
    texts = [[vocabulary.text(symbols) for symbols in rows.values()] for rows in (references, found)]
    spelled = [[" ".join(vocabulary.spelled(symbols)) for symbols in rows.values()] for rows in (references, found)]
    print(f"{split}: {len(found)} clips, {len(manifest) - len(found)} skipped")
    for name, errors in (
        ("wer", word_errors(*texts)),
        ("cer", character_errors(*texts)),
        ("uer", word_errors(*spelled)),
    ):
        print(f"{name:16} {errors.rate:.5f}  {errors.edits} of {errors.length}")
    print(_write_table(folder, split, manifest, list(found), *texts))
    return 0


def _write_table(
    folder: str, split: str, manifest: Any, rows: list[int], references: list[str], hypotheses: list[str]
) -> str:
    from bridle_fairseq.evaluation.wer import character_errors, word_errors
    from bridle_fairseq.utils.files import atomic_text

    path = os.path.join(folder, f"{split}.transcripts.csv")
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["row", "path", "reference", "hypothesis", "words", "word_edits", "characters", "character_edits"]
        )
        for row, reference, hypothesis in zip(rows, references, hypotheses, strict=True):
            words, characters = (count([reference], [hypothesis]) for count in (word_errors, character_errors))
            numbers = [words.length, words.edits, characters.length, characters.edits]
            writer.writerow([row, manifest.relative_path(row), reference, hypothesis, *numbers])
    return path


def print_transcripts(args: argparse.Namespace, model: Any, task: Any, reader: Any, segment: int) -> None:
    """Each file's name, and under it what was heard.

    Raises:
        InputError: a file that cannot be used, or as :func:`decoder_of`.
    """
    from bridle_fairseq.inference.transcribe import transcribe_file

    vocabulary = task.vocabulary
    decode = decoder_of(args, vocabulary)
    for path in args.files:
        try:
            symbols = transcribe_file(model, reader, path, segment, decode)
        except DecodeError as error:
            raise InputError(f"{path}: {error}; expected a sound file") from None
        print(f"{path}\n  {vocabulary.text(symbols)}")
