"""``bridle report``: contents of the page, that it is self-contained, and errors."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch

from bridle_fairseq.cli import main as bridle
from bridle_fairseq.report import figures
from bridle_fairseq.report.examples import RIGHT, VISIBLE, WRONG, Items, Map, examples
from bridle_fairseq.report.run import read_run
from bridle_fairseq.utils.errors import InputError


@pytest.fixture(scope="module")
def page(runs) -> str:
    assert bridle.main(["report", str(runs[0]), "--clips", "2"]) == 0
    return (runs[0] / "report.html").read_text()


def titles(text: str) -> list[str]:
    return re.findall(r"<h[23]>(.*?)</h[23]>", text)


def test_page_has_all_sections(page) -> None:
    found = titles(page)
    for title in ("Loss", "Accuracy of each level's codes", "Probe accuracy", "Perplexity of each level", "Dead codes"):
        assert title.replace("'", "&#x27;") in found
    for title in ("Codes in use", "Revived codes", "Residual energy", "Level 2", "Map of embeddings", "Configuration"):
        assert title in found
    assert {"Speed", "Memory"} <= set(found) and "<b>0.62 GB</b><span>of memory</span>" in page
    assert page.count('alt="codes of level') == page.count('alt="predictions of level') == 2 * 2
    assert "cold start" in page and ">tokenizer 2<" in page  # stages in the charts
    assert "<b>0.625</b><span>ridge accuracy at the end</span>" in page
    assert "k-NN on the labelled manifest" in page and "ridge on the labelled manifest" in page
    assert "a &lt;dog&gt;" in page and "PCA of the mean-pooled features of 9 clips" in page
    assert "<th>model.codebook_size</th><td>16</td>" in page


def test_pages_are_well_formed_and_self_contained(page, runs, tmp_path, structure_of) -> None:
    assert bridle.main(["report", *map(str, runs), "--out", str(tmp_path / "both.html")]) == 0
    for text in (page, (tmp_path / "both.html").read_text()):
        structure = structure_of(text)
        assert structure.open == []
        assert all(address.startswith("data:") for address in structure.addresses)
        assert (
            "@import" not in text and "url(" not in text and not re.search(r"https?:(?!//www.w3.org/2000/svg')", text)
        )


def test_comparison_has_differences_and_final_metrics(runs, tmp_path) -> None:
    bridle.main(["report", *map(str, runs), "--out", str(tmp_path / "both.html")])
    text = (tmp_path / "both.html").read_text()
    assert "<th>model.num_codebooks</th><td>2</td><td>1</td>" in text
    assert "<th>model.codebook_size</th>" not in text  # the same in both
    assert "<th>accuracy, level 2 (valid)</th><td>0.1616 (update 16)</td><td></td>" in text
    assert {"Loss", "Perplexity, level 2", "Residual energy after level 1"} <= set(titles(text))


def test_predictions_are_at_masked_patches_and_right_if_equal_to_the_code(runs) -> None:
    run = read_run(str(runs[0]))
    model = run.model
    for head in (model.decoder.head.weight, model.decoder.head.bias):
        torch.nn.init.zeros_(head)  # all logits equal: code 0 is predicted everywhere
    (example,) = examples(model, Items(str(runs[0] / "valid.tsv"), run.task), 1)
    hidden = example.predicted != VISIBLE
    assert (hidden == hidden[..., :1]).all() and 0.7 < hidden.mean() < 0.9  # mask_ratio 0.8, alike for all levels
    expected = np.where(example.clip.codes == 0, RIGHT, WRONG)
    np.testing.assert_array_equal(example.predicted[hidden], expected[hidden])


def test_histogram_marks_dead_codes() -> None:
    usage = np.array([0.5, 0.3, 0.199, 0.001])
    text = figures.usage_histogram(usage, 1, dead_share=0.25)
    assert "1 of 4 are dead" in text and 'class="bars alive"' in text and 'class="bars dead"' in text
    assert 'class="bars dead"' not in figures.usage_histogram(np.ones(4), 1, 0.25)


def test_labels_of_a_map_have_distinct_marks() -> None:
    labels = [f"label {number % 40:02}" for number in range(120)]
    text = figures.scatter(Map(np.random.default_rng(0).normal(size=(120, 2)), labels, "PCA"))
    legend = re.findall(r'viewBox="0 0 12 12"><(\w+).*?(--line-\d)', text)
    assert len(legend) == len(set(legend)) == 24 and "17 more" in text


def test_run_without_its_manifests_is_shown(runs, tmp_path) -> None:
    shutil.copytree(runs[1], tmp_path / "moved")
    (tmp_path / "moved" / "valid.tsv").unlink()
    checkpoint = tmp_path / "moved" / "checkpoints" / "checkpoint_last.pt"
    state = torch.load(checkpoint, weights_only=False)
    state["cfg"]["task"]["data"] = str(tmp_path / "gone")
    torch.save(state, checkpoint)
    assert bridle.main(["report", str(tmp_path / "moved"), "--out", str(tmp_path / "a.html")]) == 0
    assert "not where they were" in (tmp_path / "a.html").read_text()
    manifest = str(runs[0] / "valid.tsv")
    assert (
        bridle.main(["report", str(tmp_path / "moved"), "--out", str(tmp_path / "a.html"), "--manifest", manifest]) == 0
    )
    assert 'class="clip card"' in (tmp_path / "a.html").read_text()


def test_tensorboard_files_replace_a_missing_log(runs, tmp_path) -> None:
    from tensorboardX import SummaryWriter

    shutil.copytree(runs[1], tmp_path / "run")
    (tmp_path / "run" / "hydra_train.log").unlink()
    with SummaryWriter(str(tmp_path / "run" / "board" / "train_inner")) as writer:
        for update in (2, 4):
            writer.add_scalar("loss", update / 2, update)
    with SummaryWriter(str(tmp_path / "run" / "board" / "valid")) as writer:
        writer.add_scalar("loss", 1.5, 4)
    records = read_run(str(tmp_path / "run")).records
    assert [(r.split, r.update, r.values["loss"]) for r in records if "loss" in r.values] == [
        ("train", 2, 1.0), ("train", 4, 2.0), ("valid", 4, 1.5)
    ]  # fmt: skip


def test_checkpoints_are_found_in_the_configured_folder(runs, tmp_path) -> None:
    shutil.copytree(runs[1], tmp_path / "run")
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "saves")
    with pytest.raises(InputError, match="no checkpoint"):
        read_run(str(tmp_path / "run"))
    (tmp_path / "run" / ".hydra").mkdir()
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text(f"checkpoint:\n  save_dir: {tmp_path / 'saves'}\n")
    assert read_run(str(tmp_path / "run")).checkpoint == tmp_path / "saves" / "checkpoint_last.pt"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{tmp}/none"], "none: no such folder"),
        (["{tmp}"], "no log with JSON lines"),
        (["{tmp}/mute"], "no log with JSON lines"),
        (["{tmp}/half"], "not a checkpoint that fairseq can load"),
        (["{run}", "{run}"], "2 runs and no --out"),
        (["{run}", "--manifest", "{tmp}/none.tsv"], "none.tsv"),
        (["{run}", "--clips", "-1"], "--clips is -1"),
    ],
)
def test_wrong_input_is_reported_in_one_sentence(runs, tmp_path, capsys, arguments, sentence) -> None:
    for name in ("mute", "half"):
        shutil.copytree(runs[1], tmp_path / name)
    (tmp_path / "mute" / "hydra_train.log").write_text("nothing\n")
    checkpoint = tmp_path / "half" / "checkpoints" / "checkpoint_last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    filled = [text.format(tmp=tmp_path, run=runs[1]) for text in arguments]
    out = [] if "no --out" in sentence else ["--out", str(tmp_path / "x.html")]
    assert bridle.main(["report", *filled, *out]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("bridle: error: ") and sentence in error
    assert not (tmp_path / "x.html").exists()
