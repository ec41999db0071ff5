"""Work on a corpus that many processes share and that survives a kill.

The manifest's rows are divided into blocks. The division depends on the manifest and the settings only. Each finished
block is one file that appears atomically. The process that finishes the last block joins them into the result. Neither
the number of shards nor a restart changes a byte of it. What is computed is a subclass's concern, such as
:class:`.codes.CodesJob`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.provenance import check_settings
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.bounds import SKIPPED
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary, locked
from bridle_fairseq.utils.json_files import parse_json
from bridle_fairseq.utils.schema import check

ROWS_PER_BLOCK = 256
SAMPLES_PER_BLOCK = 1 << 27  # at the files' own rates: about 280 clips of 10 s at 48 kHz


class BlockResult(NamedTuple):
    """What was computed for one block of rows."""

    arrays: dict[str, np.ndarray]
    skipped: list[tuple[int, str]]  # (row, reason)


def plan_blocks(sizes: np.ndarray, rows: int = ROWS_PER_BLOCK, samples: int = SAMPLES_PER_BLOCK) -> list[range]:
    """Divide rows into consecutive blocks of at most ``rows`` rows and ``samples`` samples; no row is split."""
    blocks, first, total = [], 0, 0
    for row, size in enumerate(sizes.tolist()):
        if row > first and (row - first == rows or total + size > samples):
            blocks.append(range(first, row))
            first, total = row, 0
        total += size
    blocks.append(range(first, len(sizes)))
    return blocks


class ShardedJob:
    """The computation of ``{prefix}.*``, block by block.

    Finished blocks are stored in a folder beside the result, whose name contains a hash of the settings. A subclass
    names the files of a complete result (:attr:`endings`), reads its description (:meth:`stored_info`), and joins the
    blocks (:meth:`_join`).

    Args:
        prefix: path up to and including ``{split}.codes`` or the like.
        info: a dataclass, the content of the complete ``{prefix}.json``.
        manifest: the rows; None if they are the rows of another artifact.
        overwrite: allow replacing a complete result of other settings.
        blocks: as :func:`plan_blocks` returns them; must depend on the manifest and ``info`` only.

    Raises:
        InputError: a result of other settings is there, without ``overwrite``.
    """

    what: str  # name of the result in messages
    endings: Sequence[str]  # of the files of a complete result, without the json

    def __init__(
        self,
        prefix: str | os.PathLike[str],
        info: Any,
        manifest: Manifest | None,
        overwrite: bool = False,
        blocks: Sequence[range] | None = None,
    ) -> None:
        self.prefix, self.info, self.manifest = os.fspath(prefix), info, manifest
        if blocks is None:
            assert manifest is not None, "blocks are required without a manifest"
            blocks = plan_blocks(manifest.sizes)
        self.blocks = blocks
        settings = hashlib.sha256(json.dumps(dataclasses.asdict(info), sort_keys=True).encode()).hexdigest()
        self.folder = Path(f"{self.prefix}.parts-{settings[:12]}")
        if os.path.exists(f"{self.prefix}.json") and not overwrite:
            check_settings(self.prefix, self.what, self.stored_info(), self.info)

    def stored_info(self) -> Any:
        """The content of ``{prefix}.json``."""
        raise NotImplementedError

    def _join(self) -> Any:
        """Write the files of the result, the json last, and return a summary."""
        raise NotImplementedError

    def files(self) -> list[str]:
        """The files of a complete result, without the json."""
        return [f"{self.prefix}.{end}" for end in self.endings]

    def finished(self) -> bool:
        """Whether the complete result of exactly these settings is there."""
        if not all(os.path.exists(path) for path in (*self.files(), f"{self.prefix}.json")):
            return False
        try:
            return self.stored_info() == self.info
        except InputError:
            return False

    def missing(self, shard: int = 0, num_shards: int = 1) -> list[int]:
        """Numbers of a shard's blocks that are not stored yet; a shard's blocks are consecutive."""
        numbers = np.array_split(np.arange(len(self.blocks)), num_shards)[shard]
        return [int(number) for number in numbers if not self._path(int(number)).exists()]

    def has(self, number: int) -> bool:
        """Whether a block is stored, or joined already."""
        return self._path(number).exists() or self.finished()

    def write(self, number: int, result: BlockResult) -> None:
        """Store a block atomically."""
        # An npz holds arrays only, so the skipped rows are the bytes of a JSON text.
        skipped = np.frombuffer(json.dumps(result.skipped).encode(), dtype=np.uint8)
        try:
            with atomic_binary(self._path(number)) as file:
                np.savez(file, skipped=skipped, **result.arrays)  # type: ignore[arg-type]  # none is named allow_pickle
        except FileNotFoundError:
            if not self.finished():  # else another process of this shard has joined the blocks and removed the folder
                raise

    def read(self, number: int, names: Sequence[str]) -> BlockResult:
        """Read some arrays of a stored block, and its skipped rows.

        Raises:
            InputError: the file is damaged.
        """
        try:
            with np.load(self._path(number), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in names}
                skipped = parse_json(stored["skipped"].tobytes())
                if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                    raise ValueError("no array")  # NumPy returns bytes that do not begin as an array
        except FileNotFoundError:
            raise
        except Exception as error:  # a damaged zip archive can raise any exception
            raise self.damaged(number, " ".join(str(error).split())[:120] or type(error).__name__) from None
        check(SKIPPED, "skipped", skipped, str(self._path(number)))
        return BlockResult(arrays, [(row, reason) for row, reason in skipped])

    def damaged(self, number: int, reason: str) -> InputError:
        """The error of a stored block that cannot be right."""
        return InputError(f"{self._path(number)}: damaged ({reason}); remove it, and run the command again")

    def check_sizes(self, number: int, sizes: np.ndarray) -> None:
        """Check an array of a stored block that has a size, of any integer type, for each of its rows.

        Raises:
            InputError: it has not.
        """
        if sizes.dtype.kind != "i" or sizes.shape != (len(self.blocks[number]),) or (sizes < 0).any():
            raise self.damaged(number, "sizes that are not those of its rows")

    def skipped(self) -> list[tuple[int, str]]:
        """Skipped rows of all stored blocks, with reasons."""
        entries: list[tuple[int, str]] = []
        for number in range(len(self.blocks)):
            with suppress(FileNotFoundError):  # not stored yet, or another process has joined the blocks
                entries += self.read(number, ()).skipped
        return entries

    def join(self) -> Any | None:
        """Join all blocks into the result, remove them, and return a summary.

        None if blocks are missing, or if another process has already joined them.
        """
        with locked(self.folder) as held:
            if not held:
                return None
            summary = None
            if not self.finished():
                if self.missing():
                    return None
                with suppress(FileNotFoundError):
                    os.unlink(f"{self.prefix}.json")  # without it, no result counts as complete
                summary = self._join()
            shutil.rmtree(self.folder, ignore_errors=True)  # another process of this shard may still write to it
        return summary

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"
