"""The symbols of transcripts (``dict.ltr.txt``) and the transcript of each row (``{split}.ltr``), in fairseq's formats.

There are two kinds of symbols: letters (``ltr``), with ``|`` after each word, and SentencePiece pieces (``spm``), where
words begin with U+2581. A line has a row's symbols, separated by spaces. Nothing here imports fairseq.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import torch

from bridle_fairseq.data.manifests.labels import RaggedRows
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.text_files import read_lines

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # the first symbols of fairseq's Dictionary; no file lists them
WORD_MARKS = {"ltr": "|", "spm": "\u2581"}


class Vocabulary:
    """Numbered symbols in the order of fairseq's Dictionary: four special ones, then those of the file.

    Attributes:
        symbols: all symbols.
        kind: ``ltr`` or ``spm``.
        source: the file, for messages.
    """

    def __init__(self, symbols: Sequence[str], kind: str, source: str = "the dictionary") -> None:
        self.symbols, self.kind, self.source = list(symbols), kind, source
        self._numbers = {symbol: number for number, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: str) -> bool:
        """Whether a transcript may contain this symbol."""
        return self._numbers.get(symbol, 0) >= len(SPECIAL)

    @staticmethod
    def path(folder: str | os.PathLike[str], kind: str) -> str:
        """Path of the dictionary in a data folder.

        Raises:
            InputError: unknown kind.
        """
        if kind not in WORD_MARKS:
            raise InputError(f"task.labels is {kind!r}; expected one of {', '.join(WORD_MARKS)}")
        return os.path.join(folder, f"dict.{kind}.txt")

    @classmethod
    def read(cls, folder: str | os.PathLike[str], kind: str) -> Vocabulary:
        """Read ``dict.{kind}.txt``: a line ``symbol count`` for each symbol.

        Raises:
            InputError: missing, empty, a line of another form, or a symbol that is listed twice.
        """
        path = cls.path(folder, kind)
        symbols = list(SPECIAL)
        for number, line in enumerate(read_lines(path, "this dictionary"), 1):
            symbol, _, count = line.rpartition(" ")
            if not symbol or not count.isdecimal():
                raise InputError(f"{path}, line {number}: {line[:60]!r}; expected 'symbol count'")
            symbols.append(symbol)
        if len(symbols) == len(SPECIAL):
            raise InputError(f"{path}: no symbol; expected a line 'symbol count' for each")
        if len(set(symbols)) != len(symbols):
            first: dict[str, int] = {}
            number, twice = next((n, s) for n, s in enumerate(symbols) if first.setdefault(s, n) != n)
            raise InputError(
                f"{path}, line {number - len(SPECIAL) + 1}: {twice[:60]!r} a second time; expected each once"
            )
        return cls(symbols, kind, path)

    @classmethod
    def write(cls, folder: str | os.PathLike[str], kind: str, counts: Mapping[str, int]) -> str:
        """Write symbols and their counts to ``dict.{kind}.txt``, in this order, and return the path."""
        path = cls.path(folder, kind)
        with atomic_text(path) as file:
            file.writelines(f"{symbol} {count}\n" for symbol, count in counts.items())
        return path

    def numbers(self, line: str) -> list[int]:
        """Numbers of the symbols in a line.

        Raises:
            KeyError: an unknown symbol.
        """
        symbols = line.split()
        for symbol in symbols:
            if symbol not in self:
                raise KeyError(symbol)
        return [self._numbers[symbol] for symbol in symbols]

    def spelled(self, numbers: Iterable[int]) -> list[str]:
        """The symbols with these numbers."""
        return [self.symbols[number] for number in numbers]

    def text(self, numbers: Iterable[int]) -> str:
        """The words that symbols spell, separated by spaces."""
        return " ".join("".join(self.spelled(numbers)).replace(WORD_MARKS[self.kind], " ").split())


class Transcripts(RaggedRows):
    """Symbol numbers of each row of a manifest.

    Args:
        rows: symbol numbers of each row.
        vocabulary: the symbols.
    """

    def __init__(self, rows: Iterable[Sequence[int]], vocabulary: Vocabulary) -> None:
        super().__init__(rows)
        self.vocabulary = vocabulary

    def __getitem__(self, row: int) -> torch.Tensor:
        """The symbol numbers of a row: L int64."""
        return torch.tensor(self.numbers(row), dtype=torch.long)

    @classmethod
    def read(cls, path: str | os.PathLike[str], manifest: Manifest, vocabulary: Vocabulary) -> Transcripts:
        """Read ``{split}.{kind}``: line i has the symbols of the manifest's row i.

        Raises:
            InputError: missing, not as many lines as the manifest has rows, an empty line, or a symbol that is not in
                the dictionary.
        """
        path = os.fspath(path)
        lines = list(read_lines(path, "these transcripts"))
        if len(lines) != len(manifest):
            raise InputError(
                f"{path}: {len(lines)} lines; expected {len(manifest)}, one for each row of {manifest.name}"
            )
        return cls((_numbers(line, path, number, vocabulary) for number, line in enumerate(lines, 1)), vocabulary)


def _numbers(line: str, path: str, line_number: int, vocabulary: Vocabulary) -> list[int]:
    try:
        numbers = vocabulary.numbers(line)
    except KeyError as error:
        (symbol,) = error.args
        expected = f"one of the {len(vocabulary) - len(SPECIAL)} symbols of {vocabulary.source}"
        raise InputError(f"{path}, line {line_number}: unknown symbol {symbol[:60]!r}; expected {expected}") from None
    if not vocabulary.text(numbers):
        raise InputError(f"{path}, line {line_number}: an empty transcript; expected the words of its clip")
    return numbers
