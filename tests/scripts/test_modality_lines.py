"""One method for all modalities: what each has of its own, as scripts/modality_lines.py counts it."""

import ast
import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bridle_fairseq"
METHOD = ("nn", "quantization", "models", "criterions", "optim")
WORDS = ("audio", "sound", "image", "picture", "video", "clip", "pixel", "frame")

spec = importlib.util.spec_from_file_location("modality_lines", ROOT / "scripts" / "modality_lines.py")
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


def test_the_method_has_no_class_of_a_modality_but_its_front_ends() -> None:
    _, classes = script.count()
    own = {name for found in classes.values() for name in found if name.split(".")[0] in METHOD}
    assert own == {"nn.LogMel", "nn.AudioFrontEnd", "nn.PixelFrontEnd"}
    for folder in METHOD:
        for path in (PACKAGE / folder).glob("*.py"):
            names = [n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef)]
            named = {name for name in names if any(word in name.lower() for word in WORDS)}
            assert named <= {"AudioFrontEnd", "PixelFrontEnd"}, path


def test_the_method_asks_for_no_modality() -> None:
    """What a modality's name decides stands in two tables: of front ends, and of the axes of a patch."""
    for folder in METHOD:
        for path in (PACKAGE / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
                compared = {side.value for side in sides if isinstance(side, ast.Constant)}
                # fine-tuning names the settings that are for sound alone
                assert not compared & {"audio", "image", "video"} or path.name == "finetuning.py", path


def test_every_file_of_the_lists_is_there(tmp_path) -> None:
    for names in script.FILES.values():
        assert all((PACKAGE / f"{name}.py").is_file() for name in names)
    (tmp_path / "a.py").write_text(
        '"""Text."""\n\nx = 1  # why\n\n\ndef f():\n    """Text\n    more."""\n    return [\n        x,\n    ]\n'
    )
    assert script.code_lines(tmp_path / "a.py") == {3, 6, 9, 10, 11}
