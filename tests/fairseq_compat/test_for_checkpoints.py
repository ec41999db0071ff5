"""Settings are literals, and what NumPy's pickles call makes numbers only."""

import io
import os

import fairseq  # noqa: F401  # applies the patches
import numpy as np
import pytest
import torch

from fairseq_compat.for_checkpoints import LARGEST, literal
from fairseq_compat.for_errors import RunError
from fairseq_compat.patches import EVALUATING


def test_settings_of_fairseq_are_evaluated():
    layers = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] * 2"
    for text in (
        layers,
        " (0.9, 0.98)",
        "(1e-30, 1e-3)",
        "None",
        "True",
        "-1",
        "2 * [1, -2.5]",
        "('a', \"b\", {1: [2]})",
    ):
        assert literal(text) == eval(text.strip())


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true') or [(512, 10, 5)]",
        "[x for x in (1, 2)]",
        "os",
        "[1] + [open('x')]",
        "().__class__",
        "f'{1}'",
        "2 ** 99999999",
        f"[0] * {LARGEST + 1}",
        "[[0] * 999999] * 9 * 999999",
        "(" * 999,
        "1\n2",
        "",
        None,
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(ValueError, match="cannot be evaluated; expected numbers and lists"):
        literal(text)


def test_modules_of_fairseq_that_evaluate_settings_are_patched():
    import importlib
    from pathlib import Path

    folder = Path(fairseq.__path__[0])
    found = set()
    for path in folder.rglob("*.py"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        if path.relative_to(folder).parts[0] != "examples" and any("eval(" in f" {line}" for line in lines):
            words = " ".join(lines).replace("(", " ( ").replace("=", " ").split()
            if any(a == "eval" and b == "(" for a, b in zip(words, words[1:], strict=False)):
                found.add(".".join(("fairseq", *path.relative_to(folder).with_suffix("").parts)))
    assert found == set(EVALUATING)
    assert importlib.import_module("fairseq.models.wav2vec.wav2vec2").eval is literal


def load(value, weights_only=True):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=weights_only)


def test_numbers_and_arrays_of_numpy_are_loaded():
    for value in (np.float64(0.5), np.int32(-3), np.bool_(True), np.arange(6).reshape(2, 3), np.ones(2, ">f4")):
        loaded = load(value)
        expected = load(value, weights_only=False)
        assert loaded.dtype == expected.dtype and np.array_equal(loaded, expected)
        assert np.array_equal(load(loaded, weights_only=False), value)  # saved again, it is NumPy's own
    assert np.array_equal(load(np.asfortranarray(np.arange(6).reshape(2, 3))), np.arange(6).reshape(2, 3))


class Call:
    """Pickled as a call of a function, then of ``__setstate__``."""

    def __init__(self, function, arguments, state=None):
        self.reduced = (function, arguments, state) if state else (function, arguments)

    def __reduce__(self):
        return self.reduced


def test_pickles_of_numpy_cannot_make_objects_of_memory():
    declared_as_objects = Call(np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 63))
    loaded = load({"x": declared_as_objects})["x"].dtype  # flags and sizes of the state are not used
    assert loaded == np.dtype("f8") and not loaded.hasobject
    reconstruct, empty = np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b")
    objects = Call(reconstruct, empty, (1, (2,), np.dtype("f8"), False, [1, 2]))
    too_short = Call(reconstruct, empty, (1, (9,), np.dtype("f8"), False, b"12345678"))
    others = np.dtype("O"), np.dtype("V8"), np.array([{}]), np.array(["a"]), np.void(b"12345678")
    for value in (objects, too_short, *others):
        with pytest.raises(ValueError, match="expected (one of numbers|a number)|buffer size does not match"):
            load(value)


class Payload:
    def __reduce__(self):
        return os.system, ("true",)


def test_refused_checkpoint_is_named(tmp_path):
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    path = str(tmp_path / "evil.pt")
    torch.save({"model": {}, "extra": Payload()}, path)
    with pytest.raises(RunError, match=r"evil\.pt: it refers to posix\.system, so it is not loaded"):
        load_checkpoint_to_cpu(path)
