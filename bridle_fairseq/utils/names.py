"""Names from files that become names of files."""

from __future__ import annotations

import unicodedata

from bridle_fairseq.utils.errors import InputError

MAX_BYTES = 200  # file systems allow 255, and endings and temporary names need some


def checked_name(name: str, where: str) -> str:
    """The name, if it can be a part of a file's name and does not lead out of a folder.

    Args:
        name: from a table, an option or another file.
        where: the source, for messages: the file, the row and the column.

    Raises:
        InputError: empty, with a separator, a leading dot, a control character, not Unicode, or too long.
    """
    expected = "a name for files: without / and \\, no dot at its beginning, no control characters"
    controls = any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    if not name.strip() or name[0] == "." or "/" in name or "\\" in name or controls:
        raise InputError(f"{where}: {name[:MAX_BYTES]!r}; expected {expected}")
    if len(name.encode()) > MAX_BYTES:
        raise InputError(f"{where}: {name[:40]!r}... of {len(name.encode())} bytes; expected at most {MAX_BYTES}")
    return name
