"""Pages name only what exists: links, anchors, commands, configurations and scripts."""

import re
from pathlib import Path

import pytest

from bridle_fairseq.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
NARROW = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("examples/*", "manifests", "fairseq_compat", "weights")
OTHERS = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}/README.md"))]
PAGES = [*NARROW, ROOT / "BENCHMARKS.md", ROOT / "CONTRIBUTING.md", *OTHERS]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def name_of(path):
    return str(path.relative_to(ROOT))


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


def anchors(page):
    """Anchors of a page's headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_of(page):
    """All code of a page, with continued lines joined."""
    text = page.read_text()
    return "\n".join([*FENCE.findall(text), *re.findall(r"`([^`]+)`", FENCE.sub("", text))]).replace("\\\n", " ")


def test_anchors_follow_github(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One, two\n```sh\n# no heading\n```\n## The `code_of` (all) - 3\n")
    assert anchors(page) == {"one-two", "the-code_of-all---3"}


@pages
def test_relative_links_and_anchors_exist(page):
    links = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text()))
    broken = []
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", NARROW, ids=name_of)
def test_lines_have_at_most_120_columns(page):
    lines = enumerate(page.read_text().splitlines(), 1)
    assert not [number for number, line in lines if len(line) > 120]


@pages
def test_commands_of_bridle_exist(page):
    named = set(re.findall(r"\bbridle +([a-z][a-z-]*)", code_of(page)))
    assert named <= set(COMMANDS)


@pages
def test_scripts_exist(page):
    named = re.findall(
        r"(?<![\w/])((?:benchmarks|manifests|examples|scripts)/[\w/]+\.(?:py|sh|sbatch))\b", code_of(page)
    )
    assert not [path for path in named if not (ROOT / path).is_file()]


@pages
def test_configurations_exist(page):
    named = re.findall(r"--config-dir +(\S+) +--config-name +(\S+)", code_of(page))
    assert not [pair for pair in named if not (ROOT / pair[0] / f"{pair[1]}.yaml").is_file()]


def test_modules_on_the_architecture_page_exist():
    named = re.findall(r"`([\w/]+\.py)`", (ROOT / "docs/architecture.md").read_text())
    assert len(named) > 30
    assert not [path for path in named if not (ROOT / "bridle_fairseq" / path).is_file()]


def test_every_page_is_on_the_index():
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)", index.read_text())}
    assert set(PAGES) - linked == {index}
