"""``bridle export --push``: an export and its card on the Hugging Face Hub, a server on loopback here."""

from __future__ import annotations

import shutil
import sys

import huggingface_hub
import pytest

from bridle_fairseq import pretrained
from bridle_fairseq.cli import main as bridle


@pytest.fixture
def hub(hub_here):
    return hub_here


def read(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_is_uploaded_in_one_commit(hub, made, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    command = ["export", str(made[0] / "bridle.pt"), str(out), "--license", "mit", "--push", "owner/new", "--private"]
    assert bridle.main(command) == 0
    printed, files = capsys.readouterr().out, hub.models["owner/new"]["main"]
    (commit,) = hub.commits
    assert commit[:2] == ("owner/new", "main") and hub.private == ["owner/new"]
    assert f"uploaded: {hub.endpoint}/owner/new/commit/" in printed and 'pretrained.load("owner/new")' in printed
    assert files == {**read(out), ".gitattributes": b"", "README.md": files["README.md"]}
    card, text = files["README.md"].decode(), (out / "README.md").read_text()
    assert 'pretrained.load("owner/new", device="cpu")' in card and "--model owner/new --out" in card
    assert card == text.replace("this/folder", "owner/new") != text


def test_an_earlier_upload_is_replaced_and_other_files_stay(hub, exported, capsys) -> None:
    hub.add("owner/old", {"encoder.onnx": b"of another", "thesis.txt": b"mine", "config.json": b"{}"})
    assert bridle.main(["export", str(exported / "classifier"), "--push", "owner/old"]) == 0
    files = hub.models["owner/old"]["main"]
    assert set(files) == {path.name for path in (exported / "classifier").iterdir()} | {"thesis.txt"}
    assert bridle.main(["export", str(exported / "classifier"), "--push", "owner/old@v1"]) == 0
    assert bridle.main(["export", str(exported / "classifier"), "--push", "owner/old@v1"]) == 0  # nothing to change
    assert hub.models["owner/old"]["v1"]["config.json"] == files["config.json"]
    assert [commit[:2] for commit in hub.commits][:2] == [("owner/old", "main"), ("owner/old", "v1")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["{all}", "--push", "other/name"],
            "/all was not uploaded to other/name of the Hugging Face Hub (403 Forbidden",
        ),
        (["{all}", "--push", "name"], "--push name; expected owner/name or owner/name@branch"),
        (["{all}"], "no DIR; expected the folder to write, or --push with a folder"),
        (["{all}", "{new}", "--private"], "--private without --push"),
        (["{checkpoint}", "--push", "owner/name"], "bridle.pt without DIR: no folder; expected one of bridle export"),
        (["{all}", "--push", "owner/name", "--license", "mit"], "--license with an export, which is pushed as it is"),
        (["{damaged}", "--push", "owner/name"], "model.safetensors: damaged"),
        (["{folder}", "--push", "owner/name"], "which no export wrote"),
    ],
)
def test_what_cannot_be_pushed_is_said_in_one_sentence(
    hub, made, exported, tmp_path, capsys, arguments, sentence
) -> None:
    shutil.copytree(exported / "all", tmp_path / "damaged")
    (tmp_path / "damaged/model.safetensors").write_bytes(b"junk")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/thesis.txt").write_text("mine")
    names = {name: tmp_path / name for name in ("damaged", "folder", "new")}
    names |= {"all": exported / "all", "checkpoint": made[0] / "bridle.pt"}
    assert bridle.main(["export", *(text.format(**names) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and not hub.commits and not (tmp_path / "new").exists()


def test_a_wrong_token_is_said_after_the_export_was_written(hub, made, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    out = tmp_path / "out"
    assert bridle.main(["export", str(made[0] / "bridle.pt"), str(out), "--push", "owner/new"]) == 2
    assert "401" in (error := capsys.readouterr().err) and "HF_TOKEN or hf auth login" in error
    assert pretrained.load(out).parts == ["encoder", "tokenizer"] and not hub.models


def test_without_huggingface_hub_nothing_is_begun(made, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert bridle.main(["export", str(made[0] / "bridle.pt"), str(tmp_path / "out"), "--push", "owner/new"]) == 2
    assert "--push owner/new needs huggingface_hub" in (error := capsys.readouterr().err)
    assert error.endswith("install it: pip install 'bridle_fairseq[hub]'\n") and not (tmp_path / "out").exists()


def test_the_card_has_what_the_hub_reads(made, exported, write_state, tmp_path) -> None:
    import torch

    data = huggingface_hub.ModelCard.load(exported / "all/README.md").data
    assert (data.license, data.library_name, data.pipeline_tag) == (None, "bridle_fairseq", "feature-extraction")
    assert data.tags == ["audio", "bridle", "self-supervised-learning", "residual-quantization", "arxiv:2502.02118"]
    assert data.metrics is None and data.eval_results is None  # losses of pretraining are no metrics
    assert huggingface_hub.ModelCard.load(exported / "tokenizer/README.md").data.pipeline_tag is None
    assert (
        huggingface_hub.ModelCard.load(exported / "ctc/README.md").data.pipeline_tag == "automatic-speech-recognition"
    )
    state = torch.load(made[0] / "classifier.pt", weights_only=False)
    meters = state["extra_state"]["metrics"]["valid"]
    for name, total in (("accuracy", 7.5), ("mAP", float("nan"))):
        meters.append((10, name, "AverageMeter", {"val": 1.0, "sum": total, "count": 10, "round": 4}))
    torch.save(state, tmp_path / "classifier.pt")
    more = ["--license", "no", "--dataset", "owner/sounds", "--dataset", "esc: 50"]
    assert bridle.main(["export", str(tmp_path / "classifier.pt"), str(tmp_path / "out"), *more]) == 0
    data = huggingface_hub.ModelCard.load(tmp_path / "out/README.md").data
    assert (data.license, data.pipeline_tag, data.datasets) == (
        "no",
        "audio-classification",
        ["owner/sounds", "esc: 50"],
    )
    assert data.metrics == ["accuracy"]
    (result,) = data.eval_results
    assert (result.task_type, result.metric_type, result.metric_value) == ("audio-classification", "accuracy", 0.75)
    assert result.dataset_name == f"{made[0].name}/valid.tsv"
