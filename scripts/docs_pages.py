"""Writes the sources of the documentation site: the repository's pages, and pages generated from the code.

python scripts/docs_pages.py FOLDER. docs/README.md is the navigation: its sections, and the links that begin the rows
of their tables. Pages keep their places, so their relative links hold on the site as they do on GitHub.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / "docs/README.md"
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PYTHON_API = {  # what users import: module -> its members on the site, none for all
    "bridle_fairseq.pretrained": "",
    "bridle_fairseq.exported.results": "",
    "bridle_fairseq.quantization.residual": "ResidualQuantizer, QuantizedResult",
    "bridle_fairseq.models.bridle": "BridleModel",
    "bridle_fairseq.models.bridle_tokenizer": "BridleTokenizerModel",
    "bridle_fairseq.adapters.transformers": "",
    "bridle_fairseq.adapters.transformers_inputs": "",
    "bridle_fairseq.adapters.hear": "",
    "bridle_fairseq.adapters.mteb": "",
    "bridle_fairseq.adapters.s3prl": "",
    "bridle_fairseq.adapters.xares": "",
}


def navigation() -> dict[str, list[tuple[str, Path]]]:
    """Section of docs/README.md -> title and file of each of its pages."""
    sections = {}
    for section in re.split(r"^## ", INDEX.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| \[([^\]]+)\]\(([^)#]+)\) \|", section, re.MULTILINE)
        if rows:
            sections[section.splitlines()[0]] = [(title, (INDEX.parent / link).resolve()) for title, link in rows]
    return sections


def local_links(page: Path) -> set[Path]:
    """The files that a page links to, pictures included."""
    links = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    paths = (link.partition("#")[0] for link in links if not re.match(r"\w+:", link))
    return {(page.parent / path).resolve() for path in paths if path}


def pages() -> list[Path]:
    """The pages of the navigation, and the Markdown files to which they link."""
    found = [INDEX, *(page for rows in navigation().values() for _, page in rows)]
    for page in found:  # grows; a file that is missing is Sphinx's to report
        if page.suffix == ".md":
            linked = sorted(link for link in local_links(page) if link.suffix == ".md" and link.is_file())
            found += [link for link in linked if link not in found]
    return list(dict.fromkeys(found))


def plain(text: str) -> str:
    """Text as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_<>\[\]{}|~$#])", r"\\\1", text)


def command_page(parser: argparse.ArgumentParser) -> str:
    """The help of a command, and links to the pages whose code has it."""
    formatter = argparse.HelpFormatter(parser.prog, width=100)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    lines = [f"# {parser.prog}", "", plain(parser.description or ""), "", "```text", formatter.format_help().strip()]
    lines += ["```", ""]
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if shown:
            lines += [
                f"## {(group.title or '').capitalize()}",
                "",
                *([plain(group.description)] if group.description else []),
            ]
        for action in shown:
            name = formatter._format_action_invocation(action)
            text = plain(formatter._expand_help(action)) if action.help else ""
            lines += [f"* `{name}`: {text}" if text else f"* `{name}`"]
        lines += [""] * bool(shown)
    lines += [plain(parser.epilog), ""] if parser.epilog else []
    found = [row for rows in navigation().values() for row in rows if uses(row[1], parser.prog)]
    titles = [f"* [{title}](../{page.relative_to(ROOT).with_suffix('.md')})" for title, page in found]
    return "\n".join([*lines, *(["## Pages that use it", "", *titles, ""] if titles else [])])


def uses(page: Path, command: str) -> bool:
    """Whether the code of a page, in blocks or lines, has a command."""
    text = page.read_text(encoding="utf-8")
    code = [*FENCE.findall(text), *re.findall(r"`([^`]+)`", FENCE.sub("", text))]
    return page.name != "CHANGELOG.md" and any(re.search(rf"\b{command}\b(?!-)", part) for part in code)


def commands() -> dict[str, str]:
    """Name of each command of ``bridle`` -> its page."""
    from bridle_fairseq.cli.main import build_parser

    (choices,) = (a.choices for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {name: command_page(parser) for name, parser in choices.items()}


def settings_page() -> str:
    """The settings of everything that is registered with fairseq, one table for each kind."""
    import fairseq.criterions
    import fairseq.models
    import fairseq.optim
    import fairseq.optim.lr_scheduler
    import fairseq.tasks

    import bridle_fairseq

    bridle_fairseq.register()
    kinds = {
        "task": fairseq.tasks.TASK_DATACLASS_REGISTRY,
        "model": fairseq.models.MODEL_DATACLASS_REGISTRY,
        "criterion": fairseq.criterions.CRITERION_DATACLASS_REGISTRY,
        "optimizer": fairseq.optim.OPTIMIZER_DATACLASS_REGISTRY,
        "lr_scheduler": fairseq.optim.lr_scheduler.LR_SCHEDULER_DATACLASS_REGISTRY,
    }
    lines = [
        "# Settings of a configuration",
        "",
        "What `KEY=VALUE` can change, generated from the code. fairseq's own keys",
    ]
    lines[-1] += " (`dataset`, `optimization`, `checkpoint`, `common`, ...) are those of `fairseq-hydra-train --help`."
    for kind, registry in kinds.items():
        classes = {name: cls for name, cls in registry.items() if cls.__module__.startswith("bridle_fairseq.")}
        lines += ["", f"## {kind}", "", "Registered: " + ", ".join(f"`{name}`" for name in classes) + ".", ""]
        lines += ["| setting | default | meaning | of |", "|---|---|---|---|"]
        lines += [f"| `{kind}.{row[0]}` | {' | '.join(row[1:])} |" for row in rows_of(classes)]
    return "\n".join([*lines, ""])


def rows_of(classes: dict[str, type]) -> Iterator[tuple[str, str, str, str]]:
    """Name, default, help and owners of each field; equal ones of several classes in one row."""
    owners: dict[tuple[str, str, str], list[str]] = {}
    for owner, cls in classes.items():
        for field in dataclasses.fields(cls):
            if "help" not in field.metadata:
                continue
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            shown = "required" if default == "???" else f"`{json.dumps(default)}`"
            owners.setdefault((field.name, shown, plain(field.metadata["help"])), []).append(owner)
    for (name, default, text), names in owners.items():
        others = [owner for owner in classes if owner not in names]
        whose = ", ".join(names) if len(others) > 1 or len(names) == 1 < len(classes) else "all"
        yield name, default, text, plain(whose + (f" but {others[0]}" if whose == "all" and others else ""))


def notebook_page(notebook: Path, folder: Path) -> str:
    """A notebook as Markdown; its pictures are written into the folder."""
    parts = []
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif "image/png" in output.get("data", {}):
                picture = folder / f"{notebook.stem}_{number}.png"
                picture.write_bytes(base64.b64decode(output["data"]["image/png"]))
                parts.append(f"![{''.join(output['data']['text/plain'])}]({picture.name})")
    return "\n\n".join([*parts, ""])


def tree(entries: list[str], caption: str = "") -> str:
    """A part of the navigation, which its page does not show."""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *entries, "```", ""])


def trees() -> dict[Path, str]:
    """Page -> the navigation below it: of the first page all sections, of others the pages that only they link to."""
    first, below = ROOT / "README.md", {}
    sections = [tree(["All pages <docs/README>"])]
    for section, rows in navigation().items():
        entries = [f"{title} <{page.relative_to(ROOT).with_suffix('')}>" for title, page in rows if page != first]
        sections.append(tree(entries, section))
    sections.append(tree([f"bridle {name} <commands/{name}>" for name in commands()], "Commands"))
    modules = [f"{module.removeprefix('bridle_fairseq.')} <api/{module}>" for module in PYTHON_API]
    sections.append(tree(["Settings of a configuration <settings>", *modules], "Settings and Python"))
    placed = {first, INDEX, *(page for rows in navigation().values() for _, page in rows)}
    for page in [page for page in pages() if page.suffix == ".md"]:
        children = sorted(link for link in local_links(page) - placed if link.suffix == ".md" and link.is_file())
        placed |= set(children)
        below[page] = tree([f"/{child.relative_to(ROOT).with_suffix('')}" for child in children]) * bool(children)
    return below | {first: "".join(sections)}


def write_pages(folder: Path) -> None:
    """Write the repository's pages, with navigation, and the other files to which they link."""
    below = trees()
    for page in pages():
        target = folder / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".ipynb":
            target.with_suffix(".md").write_text(notebook_page(page, target.parent), encoding="utf-8")
            continue
        text = page.read_text(encoding="utf-8").replace(".ipynb)", ".md)")
        target.write_text(text + below[page], encoding="utf-8")
        for link in local_links(page):
            if link.suffix not in (".md", ".ipynb") and link.is_file():
                (folder / link.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(link, folder / link.relative_to(ROOT))


def write_generated(folder: Path) -> None:
    """Write the pages that come from the code."""
    texts = {f"commands/{name}": text for name, text in commands().items()}
    texts["settings"] = settings_page()
    for module, members in PYTHON_API.items():
        texts[f"api/{module}"] = f"# {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n"
        texts[f"api/{module}"] += f"    :members: {members}\n```\n"
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
    write_generated(Path(sys.argv[1]))
