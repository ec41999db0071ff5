"""The sources of the documentation site: the navigation, pages from the code, links, the notebook. No generator."""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import re
from pathlib import Path

import pytest

from bridle_fairseq.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples/first_steps.ipynb"
FOLDERS = "benchmarks", "bridle_fairseq", "docs", "examples", "fairseq_compat", "manifests", "scripts", "weights"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docs_pages = script("docs_pages")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """The folder of all sources."""
    folder = tmp_path_factory.mktemp("sources")
    docs_pages.write_pages(folder)
    docs_pages.write_generated(folder)
    return folder


def test_every_page_of_the_repository_is_on_the_site() -> None:
    below = [path for folder in FOLDERS for kind in ("md", "ipynb") for path in (ROOT / folder).rglob(f"*.{kind}")]
    written = [*ROOT.glob("*.md"), *below]
    assert len(written) > 25 and set(written) == set(docs_pages.pages())


def test_every_source_is_in_the_navigation_once(sources) -> None:
    entries = []
    for page in sources.rglob("*.md"):
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            lines = [line for line in block.splitlines() if line and not line.startswith(":")]
            entries += [re.sub(r"^.*<(.*)>$", r"\1", line).lstrip("/") for line in lines]
    names = [str(page.relative_to(sources).with_suffix("")) for page in sources.rglob("*.md")]
    assert sorted([*entries, "README"]) == sorted(names)


def test_relative_links_of_all_sources_resolve(sources) -> None:
    broken = [
        f"{page.relative_to(sources)}: {link}"
        for page in sources.rglob("*.md")
        for link in docs_pages.local_links(page)
        if not link.is_file() or not link.is_relative_to(sources)
    ]
    assert not broken


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_a_command_has_all_of_its_help(sources, name) -> None:
    text = (sources / f"commands/{name}.md").read_text()
    (choices,) = (a.choices for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parser = choices[name]
    formatter = parser._get_formatter()
    helps = [formatter._expand_help(action) for action in parser._actions if action.help]
    options = [option for action in parser._actions for option in action.option_strings]
    shown = re.sub(r"\\(.)", r"\1", text)
    assert text.startswith(f"# bridle {name}\n") and "usage: " in text
    assert not [part for part in [*helps, *options, parser.description, parser.epilog or ""] if part not in shown]


def test_a_command_links_to_the_pages_that_use_it(sources) -> None:
    text = (sources / "commands/bench-loader.md").read_text()
    assert "(../docs/scaling.md)" in text and "hub.md" not in text
    assert "hub.md" in (sources / "commands/export.md").read_text()


def test_settings_come_from_the_code(sources) -> None:
    rows = {row.split("`")[1]: row for row in (sources / "settings.md").read_text().splitlines() if row[:3] == "| `"}
    assert '`"none"`' in rows["model.target_norm"] and rows["task.data"].startswith("| `task.data` | required |")
    assert {"criterion.label_smoothing", "optimizer.adam_betas", "lr_scheduler.lr_clips"} <= set(rows)


def test_text_from_the_code_is_no_markup() -> None:
    assert docs_pages.plain("a_b *c* <d> {e}|$f") == r"a\_b \*c\* \<d\> \{e\}\|\$f"


def test_the_notebook_runs_and_its_pictures_are_stored() -> None:
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names = script("run_notebook").run(notebook := json.loads(json.dumps(stored)))
    assert names["accuracy"] > names["baseline"] + 0.2 and names["neighbours"] > 0.5
    for now, before in zip(notebook["cells"], stored["cells"], strict=True):
        kinds, others = ([part["output_type"] for part in cell.get("outputs", ())] for cell in (now, before))
        assert kinds == others and now.get("execution_count") == before.get("execution_count")
    outputs = [output for cell in stored["cells"] for output in cell.get("outputs", ())]
    pictures = [base64.b64decode(output["data"]["image/png"]) for output in outputs if "data" in output]
    assert len(pictures) == 2 and sum(map(len, pictures)) < 300_000


def test_the_notebook_is_a_page_with_its_outputs(sources) -> None:
    text = (sources / "examples/first_steps.md").read_text()
    assert "![Log-mel and two levels of codes of two voices](first_steps_" in text and "```text\nencoder 0." in text
    assert len(list((sources / "examples").glob("*.png"))) == 2
