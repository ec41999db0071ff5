"""The page about a fine-tuning run."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from bridle_fairseq.cli import main as bridle
from bridle_fairseq.data.manifests.labels import Classes
from bridle_fairseq.evaluation.classification import evaluate, write_tables


@pytest.fixture
def folder(finetuned, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(finetuned, tmp_path / "run")
    return tmp_path / "run"


def report(folder, *arguments) -> str:
    out = folder.parent / "page.html"
    assert bridle.main(["report", str(folder), *map(str, arguments), "--out", str(out)]) == 0
    return out.read_text()


def test_page_has_metrics_and_confusions(folder, structure_of) -> None:
    text = report(folder)
    assert "<b>0.750</b><span>best accuracy, after 8</span>" in text
    assert "<b>0.500</b><span>accuracy at the end</span>" in text
    assert re.findall(r'<div class="card"><h3>([^<]*)', text) == ["Loss", "Accuracy"]
    assert "<th>dog &lt;small&gt;</th><td>rain</td><td>2 of 3</td>" in text  # the largest mistake first
    assert text.index("<td>2 of 3</td>") < text.index("<td>1 of 2</td>")
    matrix = text[text.index('class="confusion"') :]
    assert re.findall(r"--share:([\d.]+)\">(\d*)<", matrix)[:3] == [("0.33", "1"), ("0.67", "2"), ("0.00", "")]
    hardest = text[text.index("Class by class") :]
    assert hardest.index("<th>rain</th>") < hardest.index("<th>sea</th>")
    assert "<th>model.settings.encoder_width</th><td>16</td>" in text and "pretrained.pt" in text
    structure = structure_of(text)
    assert structure.open == [] and all(address.startswith("data:") for address in structure.addresses)


def test_many_classes_are_collapsed_without_a_matrix(folder) -> None:
    names = [f"class {number}" for number in range(30)]
    lines = "".join(f"{number},{name},{name}\n" for number, name in enumerate(names))
    (folder / "many.csv").write_text(f"index,mid,display_name\n{lines}")
    found = evaluate(np.eye(30)[::-1], np.arange(30))
    write_tables(str(folder / "checkpoints"), "valid", found, Classes.read(folder / "many.csv"))
    text = report(folder)
    assert "10 more classes" in text and 'class="confusion"' not in text
    assert text.count("<td>1 of 1</td>") == 12


def test_runs_of_one_kind_are_compared(folder, make_run, tmp_path, capsys) -> None:
    text = report(folder, folder)
    assert "<th>accuracy (valid)</th><td>0.5 (update 12)</td><td>0.5 (update 12)</td>" in text
    assert "Perplexity" not in text
    other = make_run(tmp_path / "pretraining")
    assert bridle.main(["report", str(folder), str(other), "--out", str(tmp_path / "x.html")]) == 2
    assert "run of pretraining" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("classes", "f1", "F", "line 1 has no column f1"),
        ("classes", ",1,", ",one,", "expected a number"),
        ("confusion", "rain,0", "rain,none", "row 'rain' has 'none'; expected a number of clips"),
        ("confusion", "sea,1,0,1\n", "", "3 columns of counts and another number of rows"),
    ],
)
def test_damaged_tables_are_reported(folder, capsys, name, old, new, sentence) -> None:
    path = folder / "checkpoints" / f"valid.{name}.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert bridle.main(["report", str(folder)]) == 2
    assert f"valid.{name}.csv" in (error := capsys.readouterr().err) and sentence in error and error.count("\n") == 1


@pytest.mark.parametrize(("text", "code"), [("checkpoint: [", 2), ("checkpoint: {save_dir: " + "x" * 300 + "}", 0)])
def test_damaged_copy_of_the_configuration(folder, capsys, text, code) -> None:
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(text)
    assert bridle.main(["report", str(folder)]) == code
    assert code == 0 or "config.yaml: no YAML" in capsys.readouterr().err
