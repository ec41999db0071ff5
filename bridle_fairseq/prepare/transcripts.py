"""From tables of texts to the files that CTC trains from: symbols of each row, words, a dictionary.

``manifests/transcripts.py`` is a few lines over this.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bridle_fairseq.data.manifests.labels import read_csv
from bridle_fairseq.data.manifests.transcripts import SPECIAL, WORD_MARKS, Vocabulary
from bridle_fairseq.prepare.scan import Scan
from bridle_fairseq.prepare.tables import column_of, match, read_table
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text

TEXT_COLUMNS = ("transcript", "text", "sentence", "transcription")
KEPT_MARKS = "'"  # parts of words such as DON'T


class Text(NamedTuple):
    """What is said in a file, where that stands (for messages), and the file's split, "" for none."""

    words: str
    source: str
    split: str = ""


def table_texts(
    path: str, scan: Scan, name_column: str | None = None, text_column: str | None = None
) -> list[Text | None]:
    """The text of each file in a csv file with a column of transcripts.

    Raises:
        InputError: as :func:`read_table`, or no column of transcripts.
    """
    header, *rows = [[cell.strip() for cell in row] for row in read_csv(path)] or [[]]
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
    """The text of each file by the ``*.trans.txt`` files beside them, lines ``NAME TRANSCRIPT``, as LibriSpeech has.

    Args:
        scan: of a folder.
        splits: name of a split -> folders below the scanned one, whose files it takes; no file of other folders is
            taken. Empty: the first folder decides by its name, ``train...``, ``dev...`` (valid) or ``test...``.

    Raises:
        InputError: no transcripts, a file that has none, or folders without files.
    """
    said = {}
    for path in sorted(Path(scan.root).rglob("*.trans.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            name, _, words = line.strip().partition(" ")
            if name:
                below = path.parent.relative_to(scan.root) / name
                said[below.as_posix()] = words, f"{path}, line {number}"
    if not said:
        raise InputError(f"{scan.root}: no *.trans.txt file with transcripts; expected LibriSpeech's folders, or a csv")
    texts: list[Text | None] = []
    for file in scan.files:
        split = _split_of(file.name, splits)
        found = said.get(os.path.splitext(file.name)[0].replace(os.sep, "/"))
        if split is not None and found is None:
            raise InputError(f"{os.path.join(scan.root, file.name)}: no line in a .trans.txt file beside it has it")
        texts.append(None if split is None or found is None else Text(*found, split))
    if not any(texts):
        listed = ", ".join(folder for folders in splits.values() for folder in folders)
        raise InputError(f"{scan.root}: no file below {listed}; expected folders that hold some")
    return texts


def _split_of(name: str, splits: Mapping[str, Sequence[str]]) -> str | None:
    if splits:
        inside = (s for s, folders in splits.items() if any(name.startswith(f"{f.strip('/')}/") for f in folders))
        return next(inside, None)
    top = name.split("/")[0]
    named = {"train": "train", "dev": "valid", "test": "test"}
    return next((split for start, split in named.items() if top.startswith(start)), "")


def normalized(text: str, case: str = "keep", drop_punctuation: bool = False) -> str:
    """A text with one space between words, in Unicode's composed form (NFC).

    Args:
        text: what is said.
        case: ``upper``, ``lower`` or ``keep``.
        drop_punctuation: leave out what Unicode calls punctuation but the apostrophe; a dash parts words.
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
    """Letters of a normalised text, with ``|`` behind each word, as the examples of wav2vec 2.0 have them."""
    return [*text.replace(" ", WORD_MARKS["ltr"]), WORD_MARKS["ltr"]]


def letter_counts(texts: Iterable[str]) -> dict[str, int]:
    """Letters and their counts, the most frequent first, equal ones by code point."""
    counts = Counter(letter for text in texts for letter in letters(text))
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def write_symbols(
    dest: str | os.PathLike[str],
    split: str,
    texts: Sequence[Text],
    spell: Callable[[str], list[str]],
    vocabulary: Vocabulary,
) -> str:
    """Write ``{split}.{kind}`` and ``{split}.wrd``, a line for each text; the path of the first.

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
