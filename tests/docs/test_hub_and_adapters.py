"""The commands and the Python of docs/hub.md and docs/adapters.md, run."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bridle_fairseq import pretrained
from bridle_fairseq.cli.main import main

DOCS = Path(__file__).resolve().parents[2] / "docs"

IMPORTS = {
    "transformers": "import bridle_fairseq.adapters.transformers",
    "xares": "from bridle_fairseq.adapters import xares",
    "hear": "from bridle_fairseq.adapters.hear import",
    "s3prl": "from bridle_fairseq.adapters.s3prl import",
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def here(made, exported, tmp_path, monkeypatch) -> Path:
    """The present folder, with a checkpoint, its export and a clip where the pages have them."""
    (tmp_path / "work/run").mkdir(parents=True)
    shutil.copy(made[0] / "bridle.pt", tmp_path / "work/run/checkpoint_last.pt")
    shutil.copytree(exported / "all", tmp_path / "work/exported")
    soundfile.write(tmp_path / "clip.wav", 0.1 * np.random.default_rng(0).standard_normal(22050), 22050)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_hub(hub_here, here) -> None:
    (commands,), (python,) = (blocks("hub.md", language) for language in ("sh", "python"))
    for command in commands.splitlines():
        assert main(shlex.split(command)[1:]) == 0, command
    assert np.load("work/vectors.npy").shape == (1, 32)
    names: dict = {}
    exec(python, names)
    assert names["model"].parts == ["encoder", "tokenizer"]
    card = hub_here.models["owner/name"]["main"]["README.md"].decode()
    assert "license: cc-by-4.0\n" in card and "datasets:\n- owner/sounds\n" in card


@pytest.mark.parametrize("library", IMPORTS)
def test_adapters(here, library) -> None:
    """mteb's lines download data sets: tests/adapters/test_mteb.py evaluates with a data set of its own."""
    if library == "transformers":
        pytest.importorskip("transformers", reason="the extra transformers is not installed")
    (python,) = [block for block in blocks("adapters.md", "python") if IMPORTS[library] in block]
    names: dict = {"__name__": "page"}
    exec(python, names)
    if library == "transformers":
        expected = pretrained.load("work/exported")
        samples, rate = soundfile.read("clip.wav", dtype="float32")
        np.testing.assert_allclose(names["vectors"].detach(), expected.embed([samples], rate), atol=1e-5)
        assert names["model"].config.num_labels == 10
    elif library == "xares":
        assert names["MyEncoder"]().output_dim == 128
    elif library == "hear":
        assert names["model"].scene_embedding_size == 64
    else:
        assert names["upstream"].get_downsample_rates("hidden_states") == 1280


def test_every_interface_has_a_test_that_is_there() -> None:
    table = re.search(r"^\| interface \|.*?\n\n", (DOCS / "adapters.md").read_text(), re.MULTILINE | re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table[0].strip().splitlines()[2:]]
    names = " ".join(name for name, *_ in rows)
    for name in ("transformers", "Hub", "X-ARES", "HEAR", "s3prl", "mteb", "timm", "W&B", "tensorboard", "ONNX", "Ray"):
        assert name in names
    for *_, path in rows:
        assert re.search(r"^def test_", (DOCS.parent / path.strip("`")).read_text(), re.MULTILINE), path
