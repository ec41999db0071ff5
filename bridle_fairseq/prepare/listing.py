"""Manifests of the files in a folder or archive, with labels from tables or from the names of folders."""

from __future__ import annotations

import mimetypes
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bridle_fairseq.data.manifests.labels import Classes
from bridle_fairseq.data.modalities import CLASSES
from bridle_fairseq.prepare.corpus import Corpus, folder_entries, labelled_corpus, scan_source
from bridle_fairseq.prepare.scan import FoundFile, NoFileError
from bridle_fairseq.prepare.siblings import sibling_entries
from bridle_fairseq.prepare.splits import check_shares, random_split
from bridle_fairseq.prepare.table_paths import report_missing
from bridle_fairseq.prepare.tables import Entry, match, read_table
from bridle_fairseq.utils.errors import InputError


@dataclass(frozen=True)
class ListingOptions:
    """Which files are listed, and how they are labelled and split.

    Attributes:
        source: folder, searched with its subfolders, or stored archive.
        dest: folder of the manifests; gets a list of unreadable files.
        modality: modality of the files.
        extensions: extensions of the files; None: the usual ones of the modality.
        path_must_contain: list only files with this text in their path.
        workers: threads that read headers.
        max_skipped: fraction of the files, and of the rows of tables, that may be unusable.
        valid_percent: fraction of the files for validation, if no table says it.
        test_percent: fraction of the files for a test, likewise.
        seed: seed of that random split.
        fold_valid_percent: fraction of the other folds that validates when a fold is tested.
        labels: tables that name files and their classes.
        columns: names of the tables' columns ``name``, ``label``, ``split`` and ``fold``; None: the usual ones.
        label_separator: between several classes in one cell; None: one class.
        class_folders: files lie in folders of their classes.
        label_member: files of labels beside the media files: see :func:`.siblings.sibling_entries`.
        classes: path of an existing ``labels.csv`` to keep to.

    Raises:
        InputError: labels from several sources, or shares out of range.
    """

    source: str
    dest: str
    modality: str = "audio"
    extensions: Sequence[str] | None = None
    path_must_contain: str | None = None
    workers: int = 8
    max_skipped: float = 0.01
    valid_percent: float = 0.05
    test_percent: float = 0.0
    seed: int = 42
    fold_valid_percent: float = 0.1
    labels: Sequence[str] = ()
    columns: Mapping[str, str | None] = field(default_factory=dict)
    label_separator: str | None = None
    class_folders: bool = False
    label_member: str | None = None
    classes: str | None = None

    def __post_init__(self) -> None:
        given = {"--class-folders": self.class_folders, "--labels": self.labels, "--label-member": self.label_member}
        if sum(map(bool, given.values())) > 1:
            raise InputError(f"{' and '.join(name for name in given if given[name])}; expected one of them")
        check_shares(self.valid_percent, self.test_percent)


def list_corpus(options: ListingOptions) -> Corpus:
    """Scan the files, and find their labels and splits.

    Raises:
        InputError: a table or the classes cannot be used, no readable file, or as :func:`labelled_corpus`.
    """
    entries: dict[str, Entry] = {}
    for path in options.labels:
        entries.update(read_table(path, options.columns, options.label_separator))
    classes = Classes.read(options.classes) if options.classes else None
    try:
        scan = scan_source(
            options.source,
            options.dest,
            options.extensions,
            options.path_must_contain,
            options.workers,
            options.modality,
            options.max_skipped,
            named=entries or None,
        )
    except NoFileError as error:
        likely = _likely_modality(error.others)
        raise InputError(f"{error}; did you mean --modality {likely}?" if likely else str(error)) from None
    share = options.valid_percent, options.seed
    if entries:
        matched = match(scan, entries)
        report_missing(entries, matched, scan, options.dest, options.max_skipped)
        return labelled_corpus(scan, matched, *share, classes, options.test_percent, options.fold_valid_percent)
    if options.label_member:
        beside = sibling_entries(scan, options.label_member)
        return labelled_corpus(scan, beside, *share, classes, options.test_percent)
    if options.class_folders:
        entries_of_folders = folder_entries(scan, *share, options.test_percent)
        return labelled_corpus(scan, entries_of_folders, *share, classes, options.test_percent)
    return Corpus(scan, random_split(len(scan.files), *share, options.test_percent))


def _likely_modality(files: Sequence[FoundFile]) -> str | None:
    """The modality of most files, by their endings; None if most are of none."""
    kinds = Counter((mimetypes.guess_type(file.name)[0] or "").partition("/")[0] for file in files)
    most = max(kinds, key=kinds.__getitem__, default="")
    return most if most in CLASSES else None
