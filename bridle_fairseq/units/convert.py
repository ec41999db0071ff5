"""Convert files of codes to files of units, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bridle_fairseq.data.artifacts.codes import CachedCodes, CodesInfo
from bridle_fairseq.data.artifacts.provenance import check_manifest
from bridle_fairseq.data.artifacts.shard_run import WHOLE_JOB, Shard, ShardOutcome, run_shard
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.exported.source import check_checkpoint
from bridle_fairseq.units.files import write_codes
from bridle_fairseq.units.info import UnitsInfo, check_same_units, read_units_info
from bridle_fairseq.units.sharding import UnitsJob, make_units
from bridle_fairseq.utils.errors import InputError


@dataclass(frozen=True)
class UnitOptions:
    """How codes become units, and what they must have been made from.

    Attributes:
        level: a number from 1, or ``all``.
        layout: layout of all levels; see :mod:`.scheme`.
        format: see :mod:`.files`.
        dedup: write runs of equal units once, with their counts in another file.
        manifest: path of the manifest that the codes must be of; None: any.
        checkpoint: path of the checkpoint that must have made the codes; None: any.
    """

    level: str = "all"
    layout: str = "interleaved"
    format: str = "km"
    dedup: bool = False
    manifest: str | None = None
    checkpoint: str | None = None

    def describe(self, codes: CachedCodes) -> UnitsInfo:
        """The description of the units of some codes."""
        level = str(int(self.level)) if self.level.isdecimal() else self.level
        layout = self.layout if level == "all" else "separate"
        return UnitsInfo(codes.info, len(codes), level, layout, self.format, self.dedup)

    def check_origin(self, prefix: str, what: str, codes: CodesInfo) -> None:
        """Check that an artifact is of the manifest and the checkpoint.

        Raises:
            InputError: it is of another one.
        """
        if self.manifest:
            check_manifest(prefix, what, codes.manifest_sha256, Manifest.read(self.manifest))
        if self.checkpoint:
            check_checkpoint(f"{prefix}.json", what, codes.checkpoint_sha256, self.checkpoint)


def write_units(
    sources: Sequence[str], out: str, options: UnitOptions, shard: Shard = WHOLE_JOB, overwrite: bool = False
) -> Iterator[tuple[str, ShardOutcome]]:
    """Write the units of several splits, or a shard of them, one after the other.

    Args:
        sources: paths of the codes; see :func:`prefix_of`.
        out: folder of the units.
        options: see :class:`UnitOptions`.
        shard: the share of this process.
        overwrite: allow replacing units of other codes or settings.

    Yields:
        (split, what this process did); the summary is a :class:`.sharding.UnitsSummary`.

    Raises:
        InputError: codes that cannot be used, or units of different kinds in one folder.
    """
    corpora = []
    for path in sources:
        prefix = prefix_of(path, ".codes")
        codes = CachedCodes(prefix)
        options.check_origin(prefix, "codes", codes.info)
        corpora.append((prefix, codes, options.describe(codes)))
    _check_same_kind([(f"{prefix}.json", info) for prefix, _, info in corpora], out, overwrite)
    for prefix, codes, info in corpora:
        split = os.path.basename(prefix).removesuffix(".codes")
        job = UnitsJob(os.path.join(out, f"{split}.units"), codes, info, overwrite)
        yield split, run_shard(job, shard, partial(make_units, job))


def restore_codes(
    sources: Sequence[str], out: str, options: UnitOptions, overwrite: bool = False
) -> Iterator[tuple[str, CodesInfo, int]]:
    """Convert the units of several splits back to codes, one after the other.

    Args:
        sources: paths of the units; see :func:`prefix_of`.
        out: folder of the codes.
        options: options whose origin is checked.
        overwrite: allow replacing other codes.

    Yields:
        See :func:`write_codes`.

    Raises:
        InputError: units that cannot be used, or other codes are there.
    """
    prefixes = [prefix_of(path, ".units") for path in sources]
    for prefix, info in [(prefix, read_units_info(prefix)) for prefix in prefixes]:
        options.check_origin(prefix, "units", info.codes)
    for prefix in prefixes:
        yield write_codes(prefix, out, overwrite)


def prefix_of(path: str, suffix: str) -> str:
    """The path of an artifact without its ending: ``train.codes`` for ``train.codes``, ``.json``, ``.bin`` or ``.idx``.

    Raises:
        InputError: it does not end with the suffix.
    """
    for ending in (".json", ".bin", ".idx"):
        path = path.removesuffix(ending)
    if not path.endswith(suffix):
        raise InputError(f"{path}: expected files called {{split}}{suffix}.json and so on")
    return path


def _check_same_kind(infos: Sequence[tuple[str, UnitsInfo]], out: str, overwrite: bool) -> None:
    """Check that all splits, and those that are in the folder, share one kind of units: they share a dictionary."""
    splits = {os.path.basename(path).removesuffix(".codes.json") for path, _ in infos}
    stored = [] if overwrite else sorted(Path(out).glob("*.units.json"))
    others = [path for path in stored if path.name.removesuffix(".units.json") not in splits]
    kinds = [*infos, *((str(path), read_units_info(str(path).removesuffix(".json"))) for path in others)]
    first_path, first = kinds[0]
    for path, info in kinds[1:]:
        check_same_units(path, info.identity, first_path, first.identity)
