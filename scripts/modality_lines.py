"""How many lines each modality has of its own in each layer, and how many all share. Prints a table for BENCHMARKS.md.

    python scripts/modality_lines.py

A file is of the modality that it is listed with below; of files that all share, single classes are. Lines are those
with code: no blank ones, comments and docstrings. The second table is every class that a modality has for itself.
"""

from __future__ import annotations

import ast
import tokenize
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "bridle_fairseq"
LAYERS = {
    "1 nn, quantization": ("nn", "quantization"),
    "2 data": ("data",),
    "3 models, tasks, criterions, optim": ("models", "tasks", "criterions", "optim"),
    "4 cli": ("cli",),
    "demo, report": ("demo", "report"),
}
MODALITIES = ("audio", "image and video", "image", "video")
FILES = {  # below the package, without .py
    "audio": ("nn/fbank", "data/audio", "data/decode", "data/resample", "demo/synthesize"),
    "image and video": ("data/pixels", "data/recolor", "nn/pixel_statistics", "baselines"),
    "image": ("data/image", "demo/shapes"),
    "video": (
        *(f"data/{name}" for name in ("clips", "frames", "on_screen", "video", "video_file", "decoding_process")),
        *("data/kinetics", "demo/motion", "cli/views"),
    ),
}
CLASSES = {  # of files that all share
    "AudioFrontEnd": "audio",
    "AudioOptions": "audio",
    "Augment": "audio",
    "PixelFrontEnd": "image and video",
    "ImageAugment": "image and video",
    "ImageOptions": "image and video",
    "VideoOptions": "video",
}


def code_lines(path: Path) -> set[int]:
    """Numbers of the lines that hold code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            texts |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    found: set[int] = set()
    with open(path, "rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in nothing and token.type != tokenize.ENCODING:
                found |= set(range(token.start[0], token.end[0] + 1))
    return found - texts


def count() -> tuple[dict[str, dict[str, int]], dict[str, list[str]]]:
    """Lines by layer and modality, and the classes of each modality."""
    owner = {name: modality for modality, names in FILES.items() for name in names}
    lines: dict[str, dict[str, int]] = {layer: defaultdict(int) for layer in [*LAYERS, "beside them"]}
    classes = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        folder = name.split("/")[0]
        layer = next((layer for layer, folders in LAYERS.items() if folder in folders), "beside them")
        code, modality = code_lines(path), owner.get(name, "shared")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            own = CLASSES.get(node.name, modality)
            if own != "shared":
                classes[own].append(f"{folder}.{node.name}")
            if own != modality:
                inside = code & set(range(node.lineno, (node.end_lineno or 0) + 1))
                lines[layer][own] += len(inside)
                code -= inside
        lines[layer][modality] += len(code)
    return lines, classes


def main() -> None:
    """Print both tables."""
    lines, classes = count()
    columns = ("shared", *MODALITIES)
    print(f"| lines of code | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for layer, found in lines.items():
        print(f"| {layer} | {' | '.join(str(found[name]) for name in columns)} |")
    print(f"| in all | {' | '.join(str(sum(found[name] for found in lines.values())) for name in columns)} |")
    print("\n| modality | its classes |\n|---|---|")
    for name in MODALITIES:
        print(f"| {name} | {', '.join(f'`{found}`' for found in classes[name])} |")


if __name__ == "__main__":
    main()
