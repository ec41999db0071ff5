"""What is made of a corpus, while it is being made: in parts, so that many processes work on it and any can be killed.

The manifest's rows are cut into chunks by what stands in the manifest alone. Each finished chunk is one file, there or
not there. Who finishes the last one joins them to the result. So neither the number of shards nor a kill and a new
start change a byte of it. What the result is, a subclass knows: :mod:`.code_parts`, :mod:`.feature_parts`.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError

ROWS_OF_CHUNK = 256
SAMPLES_OF_CHUNK = 1 << 27  # at the files' own rates: some 280 clips of 10 s at 48 kHz


class Part(NamedTuple):
    """What was made of a chunk."""

    arrays: dict[str, np.ndarray]
    skipped: list[tuple[int, str]]  # (row, reason)


def cut(sizes: np.ndarray, rows: int = ROWS_OF_CHUNK, samples: int = SAMPLES_OF_CHUNK) -> list[range]:
    """Consecutive rows in chunks of at most ``rows`` rows and ``samples`` samples; a row is never cut."""
    chunks, first, total = [], 0, 0
    for row, size in enumerate(sizes.tolist()):
        if row > first and (row - first == rows or total + size > samples):
            chunks.append(range(first, row))
            first, total = row, 0
        total += size
    chunks.append(range(first, len(sizes)))
    return chunks


class Parts:
    """The parts of ``{prefix}.*``, in a folder beside it that is named after what they are made from.

    A subclass says which files a finished result has (:attr:`endings`), how its description is read
    (:meth:`stored_info`), and joins the parts (:meth:`_join`).

    Args:
        prefix: path up to and with ``{split}.codes`` or the like.
        info: a dataclass, what the finished ``{prefix}.json`` will say.
        manifest: the rows; None where they are those of something that was made of one.
        overwrite: a finished result of other settings may be replaced.
        chunks: as :func:`cut` gives them, from nothing but the manifest and ``info``.

    Raises:
        InputError: there is such a result and it must not be replaced.
    """

    what: str  # as messages call it
    endings: Sequence[str]  # of the files of a finished result, the description's excepted

    def __init__(
        self,
        prefix: str | os.PathLike[str],
        info: Any,
        manifest: Manifest | None,
        overwrite: bool = False,
        chunks: Sequence[range] | None = None,
    ) -> None:
        self.prefix, self.info, self.manifest = os.fspath(prefix), info, manifest
        if chunks is None:
            assert manifest is not None, "without a manifest, chunks must be given"
            chunks = cut(manifest.sizes)
        self.chunks = chunks
        made_from = hashlib.sha256(json.dumps(dataclasses.asdict(info), sort_keys=True).encode()).hexdigest()
        self.folder = Path(f"{self.prefix}.parts-{made_from[:12]}")
        if os.path.exists(f"{self.prefix}.json") and not overwrite:
            refuse_others(self.prefix, self.what, self.stored_info(), self.info)

    def stored_info(self) -> Any:
        """What ``{prefix}.json`` says."""
        raise NotImplementedError

    def _join(self) -> Any:
        """Write the result's files, the json last; what it holds."""
        raise NotImplementedError

    def files(self) -> list[str]:
        """The files of a finished result, the description's excepted."""
        return [f"{self.prefix}.{end}" for end in self.endings]

    def finished(self) -> bool:
        """Whether the joined result of just these settings is there."""
        if not all(os.path.exists(path) for path in (*self.files(), f"{self.prefix}.json")):
            return False
        try:
            return self.stored_info() == self.info
        except InputError:
            return False

    def missing(self, shard: int = 0, num_shards: int = 1) -> list[int]:
        """Numbers of the chunks of a shard that are still to be done; a shard's chunks are neighbours."""
        mine = np.array_split(np.arange(len(self.chunks)), num_shards)[shard]
        return [int(number) for number in mine if not self._path(int(number)).exists()]

    def write(self, number: int, part: Part) -> None:
        """Store a chunk, all of it or nothing."""
        skipped = np.frombuffer(json.dumps(part.skipped).encode(), dtype=np.uint8)
        with replacing(self._path(number)) as file:
            np.savez(file, skipped=skipped, **part.arrays)  # type: ignore[arg-type]

    def read(self, number: int, names: Sequence[str]) -> Part:
        """These arrays of a stored chunk."""
        with np.load(self._path(number)) as stored:
            skipped = [(int(row), str(reason)) for row, reason in json.loads(stored["skipped"].tobytes())]
            return Part({name: stored[name] for name in names}, skipped)

    def skipped(self) -> list[tuple[int, str]]:
        """Rows (with reasons) that were skipped in the chunks that are there."""
        there = [number for number in range(len(self.chunks)) if self._path(number).exists()]
        return [entry for number in there for entry in self.read(number, ()).skipped]

    def join(self) -> Any | None:
        """Make the result of all chunks and remove those; None if chunks are missing or others have done it."""
        with self._lock() as held:
            if not held or self.missing():
                return None
            with suppress(FileNotFoundError):
                os.unlink(f"{self.prefix}.json")  # until the new one is there, no result is complete
            summary = self._join()
            shutil.rmtree(self.folder)
        return summary

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Hold the folder alone; False when it is gone, because it has been joined. A killed holder lets go."""
        try:
            handle = os.open(self.folder, os.O_RDONLY)
        except FileNotFoundError:
            yield False
            return
        try:
            with suppress(OSError):  # a file system without locks: two joins then write the same bytes
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield self.folder.exists()
        finally:
            os.close(handle)


def refuse_others(prefix: str, what: str, stored: Any, info: Any) -> None:
    """See that a finished result is of the settings of the one that is to take its place.

    Args:
        prefix: path without ``.json``.
        what: lies there, for the error.
        stored, info: their descriptions, dataclasses of one kind.

    Raises:
        InputError: it is of others.
    """
    found = _fields(stored)
    for name, new in _fields(info).items():
        if found[name] != new:
            raise InputError(
                f"{prefix}.json: {what} with {name} {_shown(found[name])} are there; expected {_shown(new)}, or none: "
                "choose another --out, or replace them with --overwrite"
            )


def _fields(info: Any) -> dict[str, Any]:
    """The fields of a description by name; of a description inside it, its own fields."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(info):
        value = getattr(info, field.name)
        found |= _fields(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found


def _shown(value: object) -> str:
    """A value in a message; of a hash, its beginning."""
    text = str(value)
    return text[:12] if len(text) == 64 else text[:80]


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name only when it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
