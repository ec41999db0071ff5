"""A corpus' codes while they are being made: in parts, so that many processes can work on them and any can be killed.

The manifest's rows are cut into chunks by what stands in the manifest alone. Each finished chunk is one file, there or
not there. Who finishes the last one joins them to ``{split}.codes.{bin,idx,json}`` (the format is in :mod:`.codes`). So
neither the number of shards nor a kill and a new start change a byte of the result.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from bridle_fairseq.data.codes import CodesInfo, read_info, write_info
from bridle_fairseq.data.manifest import Manifest
from bridle_fairseq.errors import InputError

ROWS_OF_CHUNK = 256
SAMPLES_OF_CHUNK = 1 << 27  # at the files' own rates: some 280 clips of 10 s at 48 kHz


class Part(NamedTuple):
    """The codes of a chunk."""

    codes: np.ndarray  # uint16, all rows' codes one after the other
    sizes: np.ndarray  # int64, how many of them belong to each row; 0 for a skipped one
    skipped: list[tuple[int, str]]  # (row, reason)
    residual_energy: np.ndarray  # float64, K: sum over patches of the energy left after each level


class Summary(NamedTuple):
    """What a finished corpus holds."""

    rows: int
    patches: int
    counts: np.ndarray  # int64, K x C: how often each code occurs
    residual_energy: np.ndarray  # float64, K: mean share of the energy left after each level
    skipped: list[tuple[int, str]]


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
    """The parts of ``{prefix}.{bin,idx,json}``, in a folder beside it that is named after what they are made from.

    Args:
        prefix: path up to and with ``{split}.codes``.
        info: what the finished json will say.
        manifest: the rows.
        overwrite: finished codes of another checkpoint or manifest may be replaced.

    Raises:
        InputError: there are such codes and they must not be replaced.
    """

    def __init__(self, prefix: str | os.PathLike[str], info: CodesInfo, manifest: Manifest, overwrite: bool = False):
        self.prefix, self.info, self.manifest = os.fspath(prefix), info, manifest
        self.chunks = cut(manifest.sizes)
        made_from = hashlib.sha256(json.dumps(dataclasses.asdict(info), sort_keys=True).encode()).hexdigest()
        self.folder = Path(f"{self.prefix}.parts-{made_from[:12]}")
        if os.path.exists(f"{self.prefix}.json") and not overwrite:
            _refuse_others(self.prefix, info)

    def finished(self) -> bool:
        """Whether the joined codes of just these settings are there."""
        if not all(os.path.exists(f"{self.prefix}.{end}") for end in ("bin", "idx", "json")):
            return False
        try:
            return read_info(self.prefix) == self.info
        except InputError:
            return False

    def missing(self, shard: int = 0, num_shards: int = 1) -> list[int]:
        """Numbers of the chunks of a shard that are still to be done; a shard's chunks are neighbours."""
        mine = np.array_split(np.arange(len(self.chunks)), num_shards)[shard]
        return [int(number) for number in mine if not self._path(int(number)).exists()]

    def write(self, number: int, part: Part) -> None:
        """Store a chunk, all of it or nothing."""
        with io.BytesIO() as buffer:
            skipped = np.frombuffer(json.dumps(part.skipped).encode(), dtype=np.uint8)
            np.savez(buffer, codes=part.codes, sizes=part.sizes, skipped=skipped, energy=part.residual_energy)
            with _replacing(self._path(number)) as file:
                file.write(buffer.getvalue())

    def read(self, number: int) -> Part:
        """A stored chunk."""
        with np.load(self._path(number)) as stored:
            skipped = [(int(row), str(reason)) for row, reason in json.loads(stored["skipped"].tobytes())]
            return Part(stored["codes"], stored["sizes"], skipped, stored["energy"])

    def skipped(self) -> list[tuple[int, str]]:
        """Rows (with reasons) that were skipped in the chunks that are there."""
        there = [number for number in range(len(self.chunks)) if self._path(number).exists()]
        return [entry for number in there for entry in self.read(number).skipped]

    def join(self) -> Summary | None:
        """Make the codes' files of all chunks and remove those; None if chunks are missing or others have done it."""
        with self._lock() as held:
            if not held or self.missing():
                return None
            with suppress(FileNotFoundError):
                os.unlink(f"{self.prefix}.json")  # until the new one is there, no codes are complete
            summary, sizes = self._write_data()
            self._write_index(sizes)
            write_info(self.prefix, self.info)
            shutil.rmtree(self.folder)
        return summary

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    def _write_data(self) -> tuple[Summary, list[int]]:
        sizes: list[int] = []
        skipped: list[tuple[int, str]] = []
        counts = np.zeros((self.info.num_codebooks, self.info.codebook_size), np.int64)
        energy = np.zeros(self.info.num_codebooks)
        with _replacing(Path(f"{self.prefix}.bin")) as file:
            for number in range(len(self.chunks)):
                part = self.read(number)
                file.write(part.codes.astype("<u2").tobytes())
                sizes += part.sizes.tolist()
                skipped += part.skipped
                energy += part.residual_energy
                for level, codes in enumerate(part.codes.reshape(-1, self.info.num_codebooks).T):
                    counts[level] += np.bincount(codes, minlength=self.info.codebook_size)
        patches = int(counts[0].sum())
        return Summary(len(sizes), patches, counts, energy / max(patches, 1), skipped), sizes

    def _write_index(self, sizes: Sequence[int]) -> None:
        from fairseq.data.indexed_dataset import MMapIndexedDataset

        path = f"{self.prefix}.idx"
        with MMapIndexedDataset.Index.writer(f"{path}.new", np.uint16) as writer:
            writer.write(sizes)
        os.replace(f"{path}.new", path)

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


def _refuse_others(prefix: str, info: CodesInfo) -> None:
    found = read_info(prefix)
    for field in dataclasses.fields(info):
        old, new = getattr(found, field.name), getattr(info, field.name)
        if old != new:
            raise InputError(
                f"{prefix}.json: codes with {field.name} {str(old)[:12]} are there; expected {str(new)[:12]}, or none: "
                "choose another --out, or replace them with --overwrite"
            )


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
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
