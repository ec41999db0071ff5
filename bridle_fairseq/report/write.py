"""Write the page about a run, or the page that compares several."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bridle_fairseq.report.compare import comparison
from bridle_fairseq.report.finetuning import finetuning_page
from bridle_fairseq.report.page import run_page
from bridle_fairseq.report.run import read_run
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text


def write_report(
    folders: Sequence[str], path: str | None = None, manifest: str | None = None, clips: int = 4, points: int = 400
) -> tuple[str, int]:
    """Write the page about the runs in these folders.

    Args:
        folders: folders of one run, or of several of the same kind.
        path: path of the page; None: ``report.html`` in the folder of a single run.
        manifest, clips, points: for a page about pretraining, see :func:`run_page`.

    Returns:
        Path and size of the page in bytes.

    Raises:
        InputError: a run cannot be read, the runs are of different kinds, or several runs come without ``path``.
    """
    if len(folders) > 1 and path is None:
        raise InputError(f"{len(folders)} runs and no --out; expected --out FILE for the page that compares them")
    runs = [read_run(folder) for folder in folders]
    kinds = {run.pretraining: run.folder for run in runs}
    if len(kinds) > 1:
        raise InputError(
            f"{kinds[True]} is a run of pretraining, {kinds[False]} of fine-tuning; expected runs of a kind"
        )
    if len(runs) > 1:
        text = comparison(runs)
    elif runs[0].pretraining:
        text = run_page(runs[0], manifest, clips, points)
    else:
        text = finetuning_page(runs[0])
    path = path or os.path.join(folders[0], "report.html")
    with atomic_text(path) as file:
        file.write(text)
    return path, len(text.encode())
