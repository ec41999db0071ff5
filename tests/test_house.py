"""The structure of the package: the order of its rooms and what they import, found by parsing every file.

A failure lists each violation as ``file:line: what is wrong (the rule)``. Imports inside functions count, and so do
strings that name a module of the package, as in ``import_module("...")``.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

NAME = "bridle_fairseq"
PACKAGE = Path(__file__).resolve().parents[1] / NAME

# A room imports only from its own row and from rows above.
ROWS = (
    ("utils",),
    ("quantization",),
    ("nn",),
    ("data.manifests",),
    ("data.artifacts",),
    ("data",),
    ("data.audio", "data.image", "data.video"),
    ("data.modalities", "data.clips", "data.pixels"),  # the table of modalities, and two shims for old model cards
    ("prepare",),
    ("exported",),
    ("units",),
    ("inference",),
    ("evaluation",),
    ("models", "tasks", "criterions", "optim"),
    ("pretrained", "export", "open_model"),
    ("adapters",),
    ("training",),
    ("report", "demo"),
    ("cli",),
    ("__main__",),
)
WITH_FAIRSEQ = ("models", "tasks", "criterions", "optim", "training", "report", "demo", "cli", "__main__")
WITH_FAIRSEQ += (
    "export.write",
    "export.model_card",
    "export.push",
    "open_model",
)  # they read checkpoints; what loads an export does not
# The method serves all modalities: what depends on one is its front end and the axes of its patches (nn/settings).
METHOD = ("quantization", "nn", "models", "criterions", "optim")
MODALITIES = ("audio", "image", "video")
MEDIA_WORDS = (*MODALITIES, "sound", "picture", "clip", "pixel", "frame")
FRONT_ENDS = ("AudioFrontEnd", "PixelFrontEnd")
AUDIO_ONLY_SETTINGS = "nn.pretrained_encoder"  # checks SpecAugment and the like, which are for sound
EVALUATING = ("eval", "exec", "instantiate", "load_checkpoint_to_cpu", "load_model_ensemble_and_task")
JSON_READERS = ("utils.json_files", "data.video.worker")  # the latter's are answers of its own child, in a pipe
MOST_MODULES = {"": 4, "data": 8}  # beside __init__.py


class Import(NamedTuple):
    """An import of a module, or a string that names one."""

    importer: str
    line: int
    target: str  # relative to the package where `inside`
    inside: bool


class Package:
    """The parsed modules of a package, by name relative to it ("" is the package itself)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, Path] = {}
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            self.files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        self.trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()}

    def where(self, module: str, line: int) -> str:
        return f"{self.files[module].relative_to(self.root.parent)}:{line}"

    def imports(self) -> Iterator[Import]:
        for importer, tree in self.trees.items():
            for node in ast.walk(tree):
                for name in self._imported(importer, node):
                    inside = name == NAME or name.startswith(f"{NAME}.")
                    target = self._module(name[len(NAME) + 1 :]) if inside else name
                    yield Import(importer, node.lineno, target, inside)

    def _imported(self, importer: str, node: ast.AST) -> list[str]:
        """Full names in an import statement (``from a import b`` gives ``a.b``), or of a string that names a module."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                own = f"{NAME}.{importer}".rstrip(".").split(".")
                depth = node.level - (self.files[importer].name == "__init__.py")
                base = ".".join([*own[: len(own) - depth], *([base] if base else [])])
            return [f"{base}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{NAME}."):
            return [node.value] if node.value[len(NAME) + 1 :] in self.files else []
        return []

    def _module(self, name: str) -> str:
        """The module of a name, which may be a member of it."""
        while name and name not in self.files:
            name = name.rpartition(".")[0]
        return name


def room_of(module: str) -> tuple[int, str] | None:
    """Row number and name of the room of a module: the longest name that it begins with."""
    rooms = [(row, room) for row, rooms in enumerate(ROWS) for room in rooms if f"{module}.".startswith(f"{room}.")]
    return max(rooms, key=lambda found: len(found[1]), default=None)


def modules_without_a_room(package: Package) -> list[str]:
    return [
        f"{package.where(module, 1)}: {module} is in no room (every module is in a room of ROWS)"
        for module in package.files
        if module and room_of(module) is None
    ]


def upward_imports(package: Package) -> list[str]:
    wrong = []
    for found in package.imports():
        own, other = room_of(found.importer), room_of(found.target) if found.inside and found.target else None
        if own is not None and other is not None and other[0] > own[0]:
            rule = f"{own[1]} imports only from its own row and from rows above, and {other[1]} is below"
            wrong.append(f"{package.where(found.importer, found.line)}: imports {NAME}.{found.target} ({rule})")
    return wrong


def circular_imports(package: Package) -> list[str]:
    edges = defaultdict(set)
    for found in package.imports():
        if found.inside and found.importer and found.target != found.importer:
            edges[found.importer].add(found.target)

    def reaches(start: str, end: str) -> bool:
        seen, waiting = set(), [start]
        while waiting:
            module = waiting.pop()
            if module == end:
                return True
            if module not in seen:
                seen.add(module)
                waiting += edges[module]
        return False

    return [
        f"{package.where(found.importer, found.line)}: imports {NAME}.{found.target}, which imports it (no circles)"
        for found in package.imports()
        if found.inside and found.target in edges[found.importer] and reaches(found.target, found.importer)
    ]


def imports_of_fairseq(package: Package) -> list[str]:
    def is_free(module: str) -> bool:
        return not any(f"{module}.".startswith(f"{room}.") for room in WITH_FAIRSEQ)

    wrong = []
    for found in package.imports():
        if found.importer == "" or not is_free(found.importer):
            continue
        if found.inside and not is_free(found.target) or found.target.split(".")[0] == "fairseq":
            target = f"{NAME}.{found.target}" if found.inside else found.target
            rule = f"only {', '.join(WITH_FAIRSEQ)} depend on fairseq"
            wrong.append(f"{package.where(found.importer, found.line)}: imports {target} ({rule})")
    return wrong


def imports_of_argparse(package: Package) -> list[str]:
    return [
        f"{package.where(found.importer, found.line)}: imports argparse (only cli and scripts parse arguments)"
        for found in package.imports()
        if found.target.split(".")[0] == "argparse"
        and not f"{found.importer}.".startswith("cli.")
        and '__name__ == "__main__"' not in package.files[found.importer].read_text(encoding="utf-8")
    ]


def repeated_class_names(package: Package) -> list[str]:
    places = defaultdict(list)
    for module, tree in package.trees.items():
        if module.startswith("adapters."):
            continue  # named as the other library names its classes
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(package.where(module, node.lineno))
    return [
        f"{where}: class {name}, as at {', '.join(other for other in found if other != where)} (a class name is unique)"
        for name, found in places.items()
        for where in found
        if len(found) > 1
    ]


def modalities_in_the_method(package: Package) -> list[str]:
    wrong = []
    for module, tree in package.trees.items():
        if module.split(".")[0] not in METHOD:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name not in FRONT_ENDS:
                named = [word for word in MEDIA_WORDS if word in node.name.lower()]
                if named:
                    rule = f"only {' and '.join(FRONT_ENDS)} belong to a modality"
                    wrong.append(f"{package.where(module, node.lineno)}: class {node.name} ({rule})")
            if isinstance(node, ast.Compare) and module != AUDIO_ONLY_SETTINGS:
                sides = [node.left, *node.comparators]
                if any(isinstance(side, ast.Constant) and side.value in MODALITIES for side in sides):
                    rule = "the method does not ask for the modality; put what differs into a table"
                    wrong.append(f"{package.where(module, node.lineno)}: compares with a modality ({rule})")
    return wrong


def crowded_rooms(package: Package) -> list[str]:
    wrong = []
    for room, most in MOST_MODULES.items():
        folder = package.root / room
        modules = [path.name for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        if len(modules) > most:
            where = folder.relative_to(package.root.parent)
            wrong.append(f"{where}: {len(modules)} modules, {', '.join(modules)} (at most {most} stand there)")
    return wrong


def unchecked_readers(package: Package) -> list[str]:
    """Readers of files that could execute code, or that take any size: there is one checked reader of each format."""
    wrong = []
    for module, tree in package.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                call, rule = ast.unparse(node.func), rule_of_reading(node, module)
                wrong += [f"{package.where(module, node.lineno)}: {call} ({rule})"] if rule else []
    return wrong


def rule_of_reading(node: ast.Call, module: str) -> str | None:
    """The rule that a call breaks."""
    call, positional = ast.unparse(node.func), [ast.unparse(value) for value in node.args]
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if call in ("json.load", "json.loads") and module not in JSON_READERS:
        return f"only {JSON_READERS[0]} parses JSON"
    if call in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
        return "with allow_pickle=False"
    if call == "torch.load" and given.get("weights_only") != "True":
        return "with weights_only=True"
    if call.startswith("yaml.") and "load" in call:
        plain = call == "yaml.load" and "yaml.BaseLoader" in (*positional[1:2], given.get("Loader"))
        return None if plain else "only yaml.load with yaml.BaseLoader"
    evaluates = call.rpartition(".")[2] in EVALUATING and not call.endswith(".eval")  # the method of a torch module
    if evaluates or call in ("pickle.load", "pickle.loads") or given.get("weights_only") == "False":
        return "executes what the file says"
    return None


RULES = (
    modules_without_a_room,
    upward_imports,
    circular_imports,
    imports_of_fairseq,
    imports_of_argparse,
    repeated_class_names,
    modalities_in_the_method,
    crowded_rooms,
    unchecked_readers,
)


@pytest.fixture(scope="module")
def package() -> Package:
    return Package(PACKAGE)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_has_no(rule, package) -> None:
    violations = rule(package)
    assert not violations, "\n" + "\n".join(violations)


def test_every_rule_finds_its_violations(tmp_path) -> None:
    files = {
        "__init__.py": "def register():\n    from bridle_fairseq import tasks\n",
        "attic.py": "",
        **{f"loose{number}.py": "" for number in range(4)},
        "utils/__init__.py": "import argparse\n",
        "utils/json_files.py": "json.loads(x)\n",
        "utils/files.py": "json.loads(x)\nnp.load(p, allow_pickle=False)\nnp.load(p)\n"
        "torch.load(p, weights_only=False)\n",
        "utils/names.py": "torch.load(p)\ntorch.load(p, weights_only=True)\nmodel.eval()\neval(x)\nexec(x)\n"
        "hydra.utils.instantiate(x)\nload_checkpoint_to_cpu(p)\ncheckpoint_utils.load_model_ensemble_and_task([p])\n"
        "yaml.load(x, yaml.BaseLoader)\nyaml.load(x, Loader=yaml.BaseLoader)\nyaml.load(x)\n"
        "yaml.load(x, yaml.Loader)\nyaml.unsafe_load(x)\npickle.loads(x)\nreader(p, weights_only=False)\n"
        "np.load(p, allow_pickle=True)\n",
        "nn/__init__.py": "class VideoHead: ...\nlong = kind == 'audio'\nclass AudioFrontEnd: ...\n",
        "nn/a.py": "def f():\n    from bridle_fairseq.data import dataset\n"
        "    from ..data.audio import x\n    from . import b\n",
        "nn/b.py": "from . import a\nMODULES = {'x': 'bridle_fairseq.tasks.t', 'y': 'bridle_fairseq.nn.a'}\n",
        "data/__init__.py": "",
        "data/dataset.py": "import fairseq.data\nclass Same: ...\n",
        **{f"data/more{number}.py": "" for number in range(8)},
        "data/audio/__init__.py": "from bridle_fairseq.data.dataset import Same\nx = 1\n",
        "tasks/__init__.py": "",
        "tasks/t.py": "import fairseq\nfrom bridle_fairseq.nn import a\nclass Same: ...\n",
        "pretrained.py": "from bridle_fairseq.tasks import t\n",
        "cli/__init__.py": "import argparse\nfrom bridle_fairseq.pretrained import load\n",
    }
    for name, text in files.items():
        path = tmp_path / NAME / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    package = Package(tmp_path / NAME)
    places = {rule.__name__: sorted(line.split(": ")[0] for line in rule(package)) for rule in RULES}
    assert places == {
        "modules_without_a_room": [f"{NAME}/{name}.py:1" for name in ("attic", "loose0", "loose1", "loose2", "loose3")],
        "upward_imports": [f"{NAME}/nn/{place}" for place in ("a.py:2", "a.py:3", "b.py:2")],
        "circular_imports": [
            f"{NAME}/{place}" for place in ("nn/a.py:4", "nn/b.py:1", "nn/b.py:2", "nn/b.py:2", "tasks/t.py:2")
        ],
        "imports_of_fairseq": [f"{NAME}/{place}" for place in ("data/dataset.py:1", "nn/b.py:2", "pretrained.py:1")],
        "imports_of_argparse": [f"{NAME}/utils/__init__.py:1"],
        "repeated_class_names": [f"{NAME}/data/dataset.py:2", f"{NAME}/tasks/t.py:3"],
        "modalities_in_the_method": [f"{NAME}/nn/__init__.py:{line}" for line in (1, 2)],
        "crowded_rooms": [NAME, f"{NAME}/data"],
        "unchecked_readers": sorted(
            [f"{NAME}/utils/files.py:{line}" for line in (1, 3, 4)]
            + [f"{NAME}/utils/names.py:{line}" for line in (1, *range(4, 9), *range(11, 17))]
        ),
    }
