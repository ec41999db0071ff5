"""From tables of transcripts to the files of CTC training: symbols and words of each row, a dictionary.

``manifests/transcripts.py`` is a thin wrapper of this module.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bridle_fairseq.data.manifests.transcripts import SPECIAL, WORD_MARKS, Vocabulary
from bridle_fairseq.prepare.csv_files import read_exported
from bridle_fairseq.prepare.scan import Scan
from bridle_fairseq.prepare.tables import column_names, column_of, match, read_table
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.text_files import read_lines

TEXT_COLUMNS = ("transcript", "text", "sentence", "transcription")
KEPT_MARKS = "'"  # inside words such as DON'T


class Text(NamedTuple):
    """The transcript of a file."""

    words: str
    source: str  # file and line, for messages
    split: str = ""  # of the file; "": none


def table_texts(
    path: str, scan: Scan, name_column: str | None = None, text_column: str | None = None
) -> list[Text | None]:
    """Read the transcript of each file from a csv file.

    Args:
        path: path of the csv file.
        scan: the files.
        name_column, text_column: columns of the csv file; default: common names are tried.

    Raises:
        InputError: as :func:`read_table`, or no column of transcripts.
    """
    names = [*column_names({"name": name_column}), *([text_column] if text_column else TEXT_COLUMNS)]
    header, *rows = [[cell.strip() for cell in row] for row in read_exported(path, names)] or [[]]
    column = text_column or next((name for name in TEXT_COLUMNS if name in header), None)
    if column is None:
        raise InputError(
            f"{path}: columns {', '.join(header)}; expected for the transcript one of {', '.join(TEXT_COLUMNS)}, or "
            "--text-column"
        )
    entries = read_table(path, {"name": name_column, "label": column})
    at = column_of(path, header, "name", name_column)
    numbers = {row[at or 0]: number for number, row in enumerate(rows, 2)}
    return match(
        scan,
        {
            name: Text("".join(entry.labels), f"{path}, row {numbers[name]}", entry.split)
            for name, entry in entries.items()
        },
    )


def librispeech_texts(scan: Scan, splits: Mapping[str, Sequence[str]]) -> list[Text | None]:
    """Read the transcript of each file from LibriSpeech's ``*.trans.txt`` files (lines ``NAME TRANSCRIPT``) beside it.

    Args:
        scan: scan of a folder.
        splits: name of a split -> its folders below the scanned one; files of other folders are not used. Empty: the
            split follows from the name of the first folder, ``train...``, ``dev...`` (valid) or ``test...``.

    Raises:
        InputError: no transcripts, a file without one, or folders without files.
    """
    transcripts = {}
    for path in sorted(Path(scan.root).rglob("*.trans.txt")):
        for number, line in enumerate(read_lines(path, "transcripts", newline=None), 1):
            name, _, words = line.strip().partition(" ")
            if name:
                below = path.parent.relative_to(scan.root) / name
                transcripts[below.as_posix()] = words, f"{path}, line {number}"
    if not transcripts:
        raise InputError(f"{scan.root}: no *.trans.txt file with transcripts; expected LibriSpeech's folders, or a csv")
    texts: list[Text | None] = []
    for file in scan.files:
        split = _split_of(file.name, splits)
        transcript = transcripts.get(os.path.splitext(file.name)[0].replace(os.sep, "/"))
        if split is not None and transcript is None:
            raise InputError(f"{os.path.join(scan.root, file.name)}: no line in a .trans.txt file beside it has it")
        texts.append(None if split is None or transcript is None else Text(*transcript, split))
    if not any(texts):
        listed = ", ".join(folder for folders in splits.values() for folder in folders)
        raise InputError(f"{scan.root}: no file below {listed}; expected folders with audio files")
    return texts


def _split_of(name: str, splits: Mapping[str, Sequence[str]]) -> str | None:
    if splits:
        inside = (s for s, folders in splits.items() if any(name.startswith(f"{f.strip('/')}/") for f in folders))
        return next(inside, None)
    top = name.split("/")[0]
    named = {"train": "train", "dev": "valid", "test": "test"}
    return next((split for start, split in named.items() if top.startswith(start)), "")


def normalized(text: str, case: str = "keep", drop_punctuation: bool = False) -> str:
    """Normalize a text: single spaces between words, Unicode's composed form (NFC).

    Args:
        text: the transcript.
        case: ``upper``, ``lower`` or ``keep``.
        drop_punctuation: drop Unicode punctuation except the apostrophe; a dash separates words.
    """
    text = unicodedata.normalize("NFC", text)
    text = {"upper": text.upper, "lower": text.lower, "keep": lambda: text}[case]()
    if drop_punctuation:
        text = "".join(map(_without_punctuation, text.replace("\u2019", "'")))
    return " ".join(text.split())


def _without_punctuation(mark: str) -> str:
    kind = unicodedata.category(mark)
    if kind == "Pd":
        return " "
    return "" if kind[0] == "P" and mark not in KEPT_MARKS else mark


def letters(text: str) -> list[str]:
    """Letters of a normalized text, with ``|`` after each word, as in the examples of wav2vec 2.0."""
    return [*text.replace(" ", WORD_MARKS["ltr"]), WORD_MARKS["ltr"]]


def letter_counts(texts: Iterable[str]) -> dict[str, int]:
    """Letters and their counts, the most frequent first, ties by code point."""
    counts = Counter(letter for text in texts for letter in letters(text))
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def write_symbols(
    dest: str | os.PathLike[str],
    split: str,
    texts: Sequence[Text],
    spell: Callable[[str], list[str]],
    vocabulary: Vocabulary,
) -> str:
    """Write ``{split}.{kind}`` and ``{split}.wrd``, a line for each text; return the path of the first.

    Raises:
        InputError: a symbol that is not in the dictionary.
    """
    lines = []
    for text in texts:
        symbols = spell(text.words)
        unknown = next((symbol for symbol in symbols if symbol not in vocabulary), None)
        if unknown is not None:
            raise InputError(
                f"{text.source}: {unknown!r} in {text.words[:60]!r} is not in {vocabulary.source}; expected its "
                f"{len(vocabulary) - len(SPECIAL)} symbols alone"
            )
        lines.append(" ".join(symbols))
    path = os.path.join(dest, f"{split}.{vocabulary.kind}")
    for name, rows in ((path, lines), (os.path.join(dest, f"{split}.wrd"), [text.words for text in texts])):
        with atomic_text(name) as file:
            file.writelines(f"{row}\n" for row in rows)
    return path
