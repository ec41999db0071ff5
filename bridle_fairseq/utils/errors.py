"""Errors that a user can fix: bad files, bad rows, bad settings, full disks. Each becomes one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
EXTRAS = {  # module of a package that the light install leaves out -> the extra that installs it
    "PIL": "images",
    "av": "video",
    "fairseq": "train",
    "fairseq_cli": "train",
    "hydra": "train",
    "huggingface_hub": "hub",
    "omegaconf": "train",
    "pyarrow": "parquet",
    "shtab": "completion",
    "sklearn": "train",
    "tensorboardX": "train",
    "tqdm": "train",
    "transformers": "transformers",
}


class InputError(Exception):
    """A user's error in one sentence: the file, the row, the value and what was expected.

    Entry points (the ``bridle`` command, the fairseq tasks) print the sentence and exit with code 2, without traceback.
    Names in files may hold line breaks or commands to a terminal, which are escaped.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """A text from a file in one line: line breaks and commands to a terminal are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class DecodeError(Exception):
    """A media file that cannot be used, with a short reason. Such files are skipped, counted and listed."""


def sentence_of(error: BaseException) -> str | None:
    """The sentence for a user, or None for an error that no user can fix.

    A user can fix an :class:`InputError`, an OSError that names its file, a full disk, a limit of open files, a lack of
    memory, and a package of an extra that is not installed.
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, UnicodeEncodeError) and error.encoding == sys.getfilesystemencoding() != "utf-8":
        return f"{error.object!a}: no name for a file in {error.encoding}; expected a UTF-8 locale, or PYTHONUTF8=1"
    if isinstance(error, ModuleNotFoundError):
        return _missing_package(error)
    if isinstance(error, MemoryError):
        return "not enough memory" + (f": {error}" if str(error) else "")
    if not isinstance(error, OSError) or error.errno is None:
        return None
    reason = error.strerror or os.strerror(error.errno)
    if error.errno in TOO_MANY_FILES and resource is not None:
        reason += f" (the limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}: ulimit -n)"
    elif error.errno in FULL_DISK:
        reason += f" ({_room_for(error)})"
    elif error.filename is None:
        return None
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def _missing_package(error: ModuleNotFoundError) -> str | None:
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    extra = EXTRAS[package]
    only = " (on Python 3.10 to 3.13)" if extra == "train" and sys.version_info >= (3, 14) else ""
    return f"{package} is not installed; this needs the extra '{extra}': uv pip install 'bridle_fairseq[{extra}]'{only}"


def _room_for(error: OSError) -> str:
    """How much room there is for the file of an error: the limit of a file's size, or the space left in its folder."""
    if error.errno == errno.EFBIG and resource is not None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY:
            return f"the limit of a file is {limit:,} bytes: ulimit -f"
    if error.filename is None:
        return "the file is unknown"
    folder = os.path.dirname(os.path.abspath(os.fsdecode(error.filename)))
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return f"{shutil.disk_usage(folder).free:,} bytes are free in {folder}"


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Print an error that a user can fix as one line and exit with 2.

    SystemExit passes through hydra and fairseq's trainer, which print a traceback of any other exception.
    """
    try:
        yield
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(f"bridle_fairseq: error: {sentence}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
