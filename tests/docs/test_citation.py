"""CITATION.cff follows the Citation File Format 1.2.0, and names this version."""

import re
from pathlib import Path

import yaml

import bridle_fairseq

ROOT = Path(__file__).resolve().parents[2]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
REQUIRED = {"cff-version", "message", "title", "authors"}
OPTIONAL = {
    "type",
    "version",
    "license",
    "keywords",
    "references",
    "abstract",
    "repository-code",
    "url",
    "date-released",
}
REFERENCE = {"type", "title", "authors", "year", "journal", "identifiers", "url", "doi"}
IDENTIFIERS = {"doi", "url", "swh", "other"}


def test_keys_are_those_of_the_format() -> None:
    assert set(CITATION) >= REQUIRED and set(CITATION) <= REQUIRED | OPTIONAL
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    for author in CITATION["authors"]:
        assert set(author) in ({"name"}, {"given-names", "family-names"})


def test_version_and_licence_are_those_of_the_package() -> None:
    assert str(CITATION["version"]) == bridle_fairseq.__version__
    assert (ROOT / "LICENSE").read_text().startswith(f"{CITATION['license']} License")


def test_the_paper_is_the_reference() -> None:
    (paper,) = CITATION["references"]
    assert set(paper) <= REFERENCE and {"type", "title", "authors"} <= set(paper) and isinstance(paper["year"], int)
    assert all(set(author) == {"given-names", "family-names"} for author in paper["authors"])
    assert all(entry["type"] in IDENTIFIERS for entry in paper["identifiers"])
    assert re.search(r"arXiv (\d+\.\d+)", (ROOT / "README.md").read_text())[1] in paper["url"]
