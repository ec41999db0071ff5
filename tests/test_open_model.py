"""Exports in place of checkpoints: the same results to the bit, and one sentence for what cannot be opened."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import soundfile
import torch

from bridle_fairseq import pretrained
from bridle_fairseq.cli.main import main
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.exported.hub import download
from bridle_fairseq.open_model import open_model
from bridle_fairseq.utils.errors import InputError

LENGTHS = [300, 5000, 8000, 9000, 20000, *[4000] * 7]
PIXELS = {
    "image": {"modality": "image", "patch_size": [8, 8]},
    "video": {"modality": "video", "patch_size": [2, 8, 8], "decoder_window": []},
}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """A folder with clips of several lengths, split.tsv, labels and transcripts."""
    folder, random = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for number, length in enumerate(LENGTHS):
        wave = 0.3 * np.sin(np.cumsum(random.uniform(0.01, 0.6, length // 400 + 1).repeat(400)[:length]))
        soundfile.write(folder / f"{number}.wav", wave, 16000)
    Manifest(str(folder), [f"{number}.wav" for number in range(len(LENGTHS))], LENGTHS).write(folder / "split.tsv")
    (folder / "labels.csv").write_text("index,mid,display_name\n0,/m/1,dog\n1,/m/2,rain\n2,/m/3,sea\n")
    (folder / "split.lbl").write_text("/m/1\n/m/2\n" * 6)
    (folder / "split.ltr").write_text("a b |\n" * 12)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def both(argv: list[str], checkpoint: Path, export: Path, folder: Path, capsys) -> None:
    """Run a command with a checkpoint and with its export: what it writes and prints is the same."""
    results = []
    for number, model in enumerate((checkpoint, export)):
        out = folder / str(number)
        assert main([text.format(model=model, out=out) for text in argv]) == 0, argv
        printed = capsys.readouterr().out.replace(str(model), "MODEL").replace(str(out), "OUT")
        printed = "\n".join(line for line in printed.splitlines() if "clips/s" not in line)
        written = {name: data.replace(bytes(str(model), "utf8"), b"MODEL") for name, data in contents(out).items()}
        results.append((printed, written))
    assert results[0] == results[1] and any(results[0])


FEATURES = ["--layers", "all", "--pooling", "mean", "class_token", "patches"]


@pytest.mark.parametrize(
    ("model", "export", "argv"),
    [
        ("bridle", "encoder", ["features", "{model}", "{tsv}", "--out", "{out}", *FEATURES]),
        ("half", "half", ["features", "{model}", "{tsv}", "--out", "{out}"]),
        ("classifier", "classifier", ["features", "{model}", "{tsv}", "--out", "{out}", *FEATURES]),
        ("bridle", "tokenizer", ["tokenize", "{model}", "{tsv}", "--out", "{out}"]),
        ("ctc", "ctc", ["embed", "{clip}", "{long}", "--model", "{model}", "--out", "{out}/x.csv"]),
        ("classifier", "classifier", ["predict", "{model}", "{clip}", "{long}"]),
        ("ctc", "ctc", ["predict", "{model}", "{clip}", "{long}"]),
        ("classifier", "classifier", ["evaluate", "{model}", "{tsv}", "--out", "{out}", "--workers", "0"]),
        ("ctc", "ctc", ["evaluate", "{model}", "{tsv}", "--out", "{out}", "--workers", "0"]),
        (
            "bridle",
            "encoder",
            ["probe", "{model}", "{folder}", "--out", "{out}", "--train", "split", "--valid", "split"]
            + ["--test", "split", "--probes", "knn", "--resamples", "9", "--layers", "last"],
        ),
    ],
)
def test_sound_gives_the_same_as_from_the_checkpoint(made, exported, sounds, tmp_path, capsys, model, export, argv):
    if argv[0] == "evaluate" and model == "ctc":
        pytest.importorskip("jiwer")
    clips = {"tsv": sounds / "split.tsv", "folder": sounds, "clip": sounds / "1.wav", "long": sounds / "4.wav"}
    argv = [
        text.format(model="{model}", out="{out}", **clips) if text[:2] not in ("{m", "{o") else text for text in argv
    ]
    both(argv, made[0] / f"{model}.pt", exported / export, tmp_path, capsys)


@pytest.fixture(scope="module")
def pixel_models(tmp_path_factory, write_state, small) -> Path:
    """Checkpoints and exports of images and video: {modality}.pt and {modality}."""
    import bridle_fairseq

    bridle_fairseq.register()
    from bridle_fairseq.models.bridle import BridleModel
    from bridle_fairseq.nn.settings import BridleSettings
    from bridle_fairseq.tasks.stages import begin_update

    folder = tmp_path_factory.mktemp("pixels")
    for modality, changes in PIXELS.items():
        torch.manual_seed(0)
        model = BridleModel(BridleSettings(**{**small, **changes})).train()
        begin_update(model, 0)
        sizes = (4, 3, 24, 24) if modality == "image" else (4, 3, 4, 24, 24)
        model(torch.rand(sizes))
        model.commit()
        task = {"_name": "bridle_pretraining", "data": "", "modality": modality, "image_size": 24, "valid_crop": 0.9}
        task |= {"num_frames": 4, "frame_stride": 2, "sample_rate": 16000, "seed": 1}
        write_state(
            folder / f"{modality}.pt",
            {"_name": "bridle", **dataclasses.asdict(model.settings)},
            task,
            model.state_dict(),
        )
        assert main(["export", str(folder / f"{modality}.pt"), str(folder / modality)]) == 0
    return folder


@pytest.mark.parametrize("modality", PIXELS)
@pytest.mark.parametrize("command", ["features", "tokenize", "embed"])
def test_pixels_give_the_same_as_from_the_checkpoint(pixel_models, tmp_path, write_video, capsys, modality, command):
    if modality == "image":
        from PIL import Image

        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)).save(tmp_path / "a.png")
        manifest = Manifest(str(tmp_path), ["a.png"], [1])
    else:
        write_video("a.mp4", frames=20, size=(32, 24))
        manifest = Manifest(str(tmp_path), ["a.mp4"], [20])
    manifest.write(tmp_path / "split.tsv")
    argv = [command, "{model}", str(tmp_path / "split.tsv"), "--out", "{out}"]
    if command == "embed":
        argv = [command, str(tmp_path), "--model", "{model}", "--out", "{out}/x.npy"]
    both(argv, pixel_models / f"{modality}.pt", pixel_models / modality, tmp_path / "out", capsys)


@pytest.mark.parametrize("modality", PIXELS)
def test_pixels_have_no_poolings_of_frequency_rows(pixel_models, modality):
    model = pretrained.load(pixel_models / modality)
    inputs = torch.rand(1, 3, 24, 24) if modality == "image" else torch.rand(1, 4, 24, 24, 3)
    x = model.features(inputs).x
    expected = torch.cat([x.mean(1), x.std(1, unbiased=False)], 1)
    torch.testing.assert_close(model.embed(inputs, pooling="statistics"), expected, atol=1e-6, rtol=1e-5)
    for pooling in ("frequency", "frequency_statistics", "segments"):
        with pytest.raises(InputError, match=f"pooling is {pooling}, which is for sound"):
            model.embed(inputs, pooling=pooling)


@pytest.mark.parametrize("index", ["features", "tokenize"])
def test_an_index_of_a_checkpoint_is_asked_with_its_export(made, exported, sounds, tmp_path, capsys, index):
    folder = made[0]
    assert main([index, str(folder / "bridle.pt"), str(sounds / "split.tsv"), "--out", str(tmp_path / "index")]) == 0
    capsys.readouterr()
    argv = ["similar", str(tmp_path / "index"), str(sounds / "4.wav"), "--checkpoint", "{model}"]
    both(argv, folder / "bridle.pt", exported / "all", tmp_path, capsys)


def test_crossval_takes_an_export(made, exported, sounds, tmp_path, capsys):
    table = tmp_path / "table.csv"
    rows = [f"{number}.wav,{number % 2},{'ab'[number // 2 % 2]}" for number in range(12)]
    table.write_text("\n".join(["filename,fold,category", *rows]))
    more = ["--layers", "last", "--valid-percent", "0.5", "--workers", "1"]
    argv = ["crossval", str(table), str(sounds), "--checkpoint", "{model}", "--out", "{out}", *more]
    both(argv, made[0] / "bridle.pt", exported / "encoder", tmp_path, capsys)


def test_old_exports_have_the_defaults(exported, tmp_path):
    shutil.copytree(exported / "all", tmp_path / "old")
    config = json.loads((tmp_path / "old/config.json").read_text())
    assert (config.pop("max_sample_size"), config.pop("min_sample_size")) == (8000, 1)
    (tmp_path / "old/config.json").write_text(json.dumps(config))
    inputs = open_model(str(tmp_path / "old")).inputs
    assert (inputs.max_sample_size, inputs.min_sample_size, inputs.sample_rate) == (163840, 1, 16000)


@pytest.mark.parametrize(
    ("command", "export", "sentence"),
    [
        ("tokenize", "encoder", "this export holds encoder; expected one with tokenizer"),
        ("tokenize", "classifier", "this export holds classifier; expected one with tokenizer"),
        (
            "features",
            "tokenizer",
            "this export holds tokenizer; expected one with encoder or classifier or transcriber",
        ),
        ("evaluate", "all", "this export holds encoder and tokenizer; expected one with classifier or transcriber"),
        ("tokenize", ".", "a folder without config.json; expected a checkpoint of fairseq-hydra-train, a folder of"),
        ("features", "none", "no such checkpoint; expected a checkpoint of fairseq-hydra-train, a folder of bridle"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(exported, sounds, tmp_path, capsys, command, export, sentence):
    assert main([command, str(exported / export), str(sounds / "split.tsv"), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed and printed.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.fixture
def hub(exported, monkeypatch):
    """The Hub has a model owner/name, whose branch v1 is a classifier; the asked (name, revision)."""
    asked = []

    def snapshot(repo, revision, allow_patterns):
        asked.append((repo, revision))
        if repo != "owner/name":
            raise huggingface_hub.errors.LocalEntryNotFoundError("not there\nSecond line")
        return str(exported / ("classifier" if revision == "v1" else "all"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    download.cache_clear()
    yield asked
    download.cache_clear()


def test_a_name_of_the_hub_is_downloaded_once(hub, sounds, tmp_path, monkeypatch, exported):
    monkeypatch.chdir(tmp_path)
    assert main(["features", "owner/name", str(sounds / "split.tsv"), "--out", "out"]) == 0
    assert main(["predict", "owner/name@v1", str(sounds / "1.wav")]) == 0
    assert hub == [("owner/name", None), ("owner/name", "v1")]
    shutil.copytree(exported / "tokenizer", tmp_path / "owner/name")  # a path that exists wins
    with pytest.raises(InputError, match="holds tokenizer"):
        open_model("owner/name")


@pytest.mark.parametrize("name", ["other/name", "other/name@v1"])
def test_an_unknown_name_is_one_sentence(hub, name):
    with pytest.raises(
        InputError, match="no such path, and not to be had from the Hugging Face Hub .not there.;"
    ) as error:
        open_model(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["runs/none.pt", "none", "a/b/c", "./owner/name", "/owner/name", "owner/na me"])
def test_other_names_are_not_looked_for_on_the_hub(hub, name):
    with pytest.raises(InputError, match="no such checkpoint.*; expected a checkpoint of"):
        open_model(name)
    assert hub == []
