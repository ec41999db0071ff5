"""The description of files of units, ``{split}.units.json``."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from bridle_fairseq.data.artifacts.codes import CODES_INFO, CodesInfo, info_of
from bridle_fairseq.units.scheme import LAYOUTS, MAX_CHARACTERS, Scheme
from bridle_fairseq.utils.bounds import CODEBOOKS, ROWS
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.json_files import read_description
from bridle_fairseq.utils.schema import Flag, OneOf, Whole, described, record_of

VERSION = 1
FORMATS = {"km": ("km",), "text": ("txt",), "fairseq": ("bin", "idx")}  # endings of the files
SPECIAL_SYMBOLS = 4  # of fairseq's dictionaries, before the units
LEVELS = OneOf(("all", *map(str, range(CODEBOOKS.low, CODEBOOKS.high + 1))), "all or a number from 1")
FAIRSEQ_UINT16_LIMIT = 65500  # fairseq stores larger vocabularies in int32


@dataclasses.dataclass(frozen=True)
class UnitsInfo:
    """Content of ``{split}.units.json``.

    Attributes:
        codes: description of the codes that the units were made from.
        rows: number of lines.
        level: a number, or ``all``.
        layout: see :mod:`.scheme`.
        format: a key of :data:`FORMATS`; see :mod:`.files`.
        dedup: whether runs of equal units are written once, with their counts in another file.
        version: version of this format.
    """

    codes: CodesInfo = described(CODES_INFO)
    rows: int = described(ROWS)
    level: str = described(LEVELS)
    layout: str = described(OneOf(LAYOUTS))
    format: str = described(OneOf(tuple(FORMATS)))
    dedup: bool = described(Flag())
    version: int = described(Whole(VERSION, VERSION), default=VERSION)

    def __post_init__(self) -> None:
        characters = self.codes.num_codebooks * self.codes.codebook_size
        if self.format == "text" and characters > MAX_CHARACTERS:
            raise InputError(f"{characters} codes in all; expected at most {MAX_CHARACTERS}, a character for each")

    @property
    def scheme(self) -> Scheme:
        """How codes become units."""
        return Scheme.of(self.codes.num_codebooks, self.codes.codebook_size, self.level, self.layout)

    @property
    def dtype(self) -> type[np.integer]:
        """Of ``.bin``."""
        return np.uint16 if self.scheme.size + SPECIAL_SYMBOLS < FAIRSEQ_UINT16_LIMIT else np.int32

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that files of units must share to be used together, by name."""
        return {
            "checkpoint_sha256": self.codes.checkpoint_sha256,
            "num_codebooks": self.codes.num_codebooks,
            "codebook_size": self.codes.codebook_size,
            "level": self.level,
            "layout": self.layout,
        }

    def stems(self, prefix: str) -> list[str]:
        """Paths of the files of each stream without endings, for ``{split}.units`` at ``prefix``."""
        folder, name = os.path.split(prefix.removesuffix(".units"))
        if self.scheme.streams == 1:
            return [os.path.join(folder, name)]
        return [os.path.join(folder, f"level{level}", name) for level in self.scheme.levels]


UNITS_INFO = record_of(UnitsInfo)


def read_units_info(prefix: str | os.PathLike[str]) -> UnitsInfo:
    """Read ``{prefix}.json``.

    Raises:
        InputError: missing, damaged, or of another version.
    """
    fields, source = read_description(prefix, "units", VERSION, UNITS_INFO), f"{os.fspath(prefix)}.json"
    info = UnitsInfo(**{**fields, "codes": info_of(fields["codes"], source)})
    if info.level != "all" and int(info.level) > info.codes.num_codebooks:
        raise InputError(f"{source}: level {info.level}; expected 1 to {info.codes.num_codebooks}, or all")
    return info


def write_units_info(prefix: str | os.PathLike[str], info: UnitsInfo) -> None:
    """Write ``{prefix}.json`` atomically."""
    with atomic_text(f"{os.fspath(prefix)}.json") as file:
        json.dump(dataclasses.asdict(info), file, indent=2)
        file.write("\n")


def check_same_units(path: str, identity: Mapping[str, Any], expected_path: str, expected: Mapping[str, Any]) -> None:
    """Check that two artifacts are of units with the same meaning.

    Args:
        path: path of the first one's description.
        identity: identity of its units (:attr:`UnitsInfo.identity`).
        expected_path: path of the second one's description.
        expected: identity of its units.

    Raises:
        InputError: a field differs.
    """
    for name, value in expected.items():
        if identity.get(name) != value:
            raise InputError(
                f"{path}: {name} {str(identity.get(name))[:12]}; expected {str(value)[:12]} as in {expected_path}; "
                "units that are used together must have the same meaning"
            )
