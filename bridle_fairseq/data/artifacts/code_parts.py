"""The parts of ``{split}.codes.{bin,idx,json}``, whose format is in :mod:`.codes`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.codes import CodesInfo, read_info, write_index, write_info
from bridle_fairseq.data.artifacts.sharding import Parts, replacing


class Summary(NamedTuple):
    """What a finished corpus holds."""

    rows: int
    patches: int
    counts: np.ndarray  # int64, K x C: how often each code occurs
    residual_energy: np.ndarray  # float64, K: mean share of the energy left after each level
    skipped: list[tuple[int, str]]


class CodeParts(Parts):
    """Codes of chunks of rows.

    A part's arrays: ``codes`` (uint16, all rows' codes one after the other), ``sizes`` (int64, how many of them belong
    to each row; 0 for a skipped one) and ``energy`` (float64, K: sum over patches of the energy left after each level).
    """

    what = "codes"
    endings = ("bin", "idx")
    info: CodesInfo

    def stored_info(self) -> CodesInfo:
        """What the finished json says."""
        return read_info(self.prefix)

    def _join(self) -> Summary:
        summary, sizes = self._write_data()
        write_index(self.prefix, sizes, np.uint16)
        write_info(self.prefix, self.info)
        return summary

    def _write_data(self) -> tuple[Summary, list[int]]:
        sizes: list[int] = []
        skipped: list[tuple[int, str]] = []
        counts = np.zeros((self.info.num_codebooks, self.info.codebook_size), np.int64)
        energy = np.zeros(self.info.num_codebooks)
        with replacing(Path(f"{self.prefix}.bin")) as file:
            for number in range(len(self.chunks)):
                arrays, some = self.read(number, ("codes", "sizes", "energy"))
                file.write(arrays["codes"].astype("<u2").tobytes())
                sizes += arrays["sizes"].tolist()
                skipped += some
                energy += arrays["energy"]
                for level, codes in enumerate(arrays["codes"].reshape(-1, self.info.num_codebooks).T):
                    counts[level] += np.bincount(codes, minlength=self.info.codebook_size)
        patches = int(counts[0].sum())
        return Summary(len(sizes), patches, counts, energy / max(patches, 1), skipped), sizes
