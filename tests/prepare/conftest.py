"""Scans of files that are not there."""

import pytest

from bridle_fairseq.prepare.scan import FoundFile, Scan


@pytest.fixture
def scan_of():
    """``scan_of(*names)`` -> the scan of a folder /r with these files."""

    def scan(*names):
        return Scan("/r", [FoundFile(name, name) for name in names], [1] * len(names), [])

    return scan
