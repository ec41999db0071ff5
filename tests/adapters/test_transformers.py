"""Exports in transformers: the training code's features, its pipelines, and files that are exports again."""

from __future__ import annotations

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bridle_fairseq import pretrained
from bridle_fairseq.exported.source import OWN_WEIGHTS, model_sha256
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import file_sha256

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
adapter = importlib.import_module("bridle_fairseq.adapters.transformers")
transformers.utils.logging.set_verbosity_error()
IMAGES = str(OWN_WEIGHTS / "bridle-small-image")
EXACT = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def batch(exported, sound):
    source, lengths, _ = sound
    clips = [clip[:length].numpy() for clip, length in zip(source, lengths, strict=True)]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(exported / "all")
    assert type(extractor) is adapter.BridleFeatureExtractor
    return extractor(clips, sampling_rate=16000, return_tensors="pt")


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8)
    return pytest.importorskip("PIL.Image").fromarray(pixels)


@torch.no_grad()
def test_features_and_codes_are_those_of_training(made, exported, sound, batch) -> None:
    (source, lengths, mask), model = sound, transformers.AutoModel.from_pretrained(exported / "all")
    assert type(model) is adapter.BridleModel and not model.training and model.config.hidden_size == 32
    out = model(**batch, output_hidden_states=True)
    for layer, found in ((None, out.last_hidden_state), (1, out.hidden_states[1]), (2, out.hidden_states[2])):
        expected = made[1].extract_features(source, mask, layer)
        valid = ~expected["padding_mask"]
        torch.testing.assert_close(found[valid], expected["x"][valid], **EXACT)
    assert torch.equal(out.padding_mask, ~valid) and out.grid == expected["grid"]
    embedded = pretrained.load(exported / "all").embed(source, 16000, lengths)
    torch.testing.assert_close(out.pooler_output, embedded, **EXACT)
    first = model.encoder.blocks[0](torch.cat([model.encoder.class_token, out.hidden_states[0][:1]], 1))
    torch.testing.assert_close(first[:, 1:], out.hidden_states[1][:1], **EXACT)
    codes, padding, grid = model.tokenize(**batch)
    assert torch.equal(codes[valid], made[1].tokenize(source, mask)[0][valid])
    values = model(batch["input_values"], return_dict=False)
    assert len(values) == 4 and torch.equal(values[1][:1], out.pooler_output[:1])


def test_sound_of_another_rate_is_resampled_as_in_training(exported) -> None:
    wave = (np.sin(np.arange(7001) * 0.2) * 0.4).astype(np.float32)
    extractor = adapter.BridleFeatureExtractor.from_pretrained(exported / "encoder")
    batch = extractor(wave.tolist(), sampling_rate=22050, return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(exported / "encoder")
    expected = pretrained.load(exported / "encoder").embed(wave, 22050)
    torch.testing.assert_close(model(**batch).pooler_output, expected, **EXACT)
    with pytest.raises(InputError, match="no sampling_rate; expected that of the waveforms, such as 16000"):
        extractor(wave)


@torch.no_grad()
def test_a_classifier_has_its_logits_names_and_pipeline(made, exported, batch, sound, tmp_path) -> None:
    model = transformers.AutoModelForAudioClassification.from_pretrained(exported / "classifier")
    assert model.config.id2label == {0: "dog", 1: "rain, heavy", 2: "sea"}
    torch.testing.assert_close(model(**batch).logits, made[2](sound[0], sound[2]), **EXACT)
    encoder = transformers.AutoModel.from_pretrained(exported / "classifier")
    expected = pretrained.load(exported / "classifier").embed(sound[0], 16000, sound[1])
    torch.testing.assert_close(encoder(**batch).pooler_output, expected, **EXACT)
    encoder.save_pretrained(tmp_path / "out")
    assert torch.equal(pretrained.load(tmp_path / "out").embed(sound[0], 16000, sound[1]), expected)
    classify = transformers.pipeline("audio-classification", model=str(exported / "classifier"))
    found = [(row["label"], row["score"]) for row in classify(sound[0][0].numpy())]
    ((*expected,),) = pretrained.load(exported / "classifier").classify(sound[0][:1], 16000)
    assert [name for name, _ in found] == [name for name, _ in expected]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-5)


def test_what_is_saved_is_an_export(exported, batch, tmp_path) -> None:
    model = transformers.AutoModel.from_pretrained(exported / "all")
    model.save_pretrained(tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (exported / "all", tmp_path / "out"))
    assert before.keys() == after.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    wave = np.sin(np.arange(8000) * 0.1, dtype=np.float32)
    found, expected = (pretrained.load(folder) for folder in (tmp_path / "out", exported / "all"))
    assert torch.equal(found.embed(wave, 16000), expected.embed(wave, 16000)) and found.settings == expected.settings
    assert torch.equal(found.codes(wave, 16000).codes, expected.codes(wave, 16000).codes)
    assert model_sha256(str(tmp_path / "out")) == file_sha256(str(tmp_path / "out/model.safetensors"))


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_a_new_head_learns_and_is_saved_with_its_names(exported, batch, tmp_path, problem) -> None:
    names = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}, "problem_type": problem}
    model = transformers.AutoModelForAudioClassification.from_pretrained(exported / "encoder", **names).train()
    labels = torch.tensor([1, 0])
    labels = labels if problem.startswith("single") else torch.nn.functional.one_hot(labels)
    optimizer, losses = torch.optim.AdamW(model.parameters(), 1e-3), []
    for _ in range(4):
        losses.append(model(**batch, labels=labels).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] and abs(losses[0].item() - np.log(2)) < 0.2
    model.save_pretrained(tmp_path / "out")
    again = transformers.AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    expected, loaded = model.eval()(**batch).logits, pretrained.load(tmp_path / "out")
    torch.testing.assert_close(again(**batch).logits, expected, **EXACT)
    lengths = batch["attention_mask"].sum(1)
    torch.testing.assert_close(loaded.logits(batch["input_values"], 16000, lengths), expected.detach(), **EXACT)
    assert loaded.classes == ["a", "b"] and loaded.config["multi_label"] == problem.startswith("multi")


def test_a_head_of_another_size_is_new_if_that_is_asked_for(exported, batch) -> None:
    load = transformers.AutoModelForAudioClassification.from_pretrained
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        load(exported / "classifier", num_labels=5)
    model = load(exported / "classifier", num_labels=5, ignore_mismatched_sizes=True)
    former = load(exported / "classifier")
    assert model(**batch).logits.shape == (2, 5) and torch.equal(model.norm.bias, former.norm.bias)
    assert 0.01 < model.head.weight.std().item() < 0.03 and not model.head.bias.any()


@torch.no_grad()
def test_images_are_read_and_classified_as_in_validation(picture, tmp_path) -> None:
    picture.save(tmp_path / "a.png")
    own = pretrained.load(IMAGES)
    shown = pretrained.read_image(str(tmp_path / "a.png"), own.image_size, own.valid_crop)
    processor = transformers.AutoImageProcessor.from_pretrained(IMAGES)
    batch = processor(picture, return_tensors="pt")
    torch.testing.assert_close(batch["pixel_values"][0], torch.from_numpy(shown) / 255, rtol=0, atol=1e-7)
    for same in (
        np.asarray(picture),
        np.asarray(picture).transpose(2, 0, 1) / 255,
        [torch.tensor(np.asarray(picture))],
    ):
        assert torch.equal(processor(same, return_tensors="pt")["pixel_values"], batch["pixel_values"])
    model = transformers.AutoModel.from_pretrained(IMAGES)
    torch.testing.assert_close(model(**batch).pooler_output, own.embed([shown]), **EXACT)
    model = transformers.AutoModelForImageClassification.from_pretrained(IMAGES, num_labels=3)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "out")
    classify = transformers.pipeline("image-classification", model=str(tmp_path / "out"))
    found = {row["label"]: row["score"] for row in classify(str(tmp_path / "a.png"))}
    ((*expected,),) = pretrained.load(tmp_path / "out").classify([shown])
    assert found == pytest.approx(dict(expected), abs=1e-5) and len(found) == 3


@torch.no_grad()
def test_images_of_several_sizes_have_a_mask(picture) -> None:
    sizes = [np.asarray(picture), np.asarray(picture)[:64, :48]]
    batch = adapter.BridleImageProcessor(image_size=0)(sizes, return_tensors="pt")
    assert batch["pixel_mask"].sum((1, 2)).tolist() == [90 * 70, 64 * 48]
    found = transformers.AutoModel.from_pretrained(IMAGES)(**batch).pooler_output
    expected = pretrained.load(IMAGES).embed([image.transpose(2, 0, 1) for image in sizes])
    torch.testing.assert_close(found, expected, **EXACT)


@torch.no_grad()
def test_half_precision_keeps_codebooks_and_filters(exported, batch) -> None:
    exact = transformers.AutoModel.from_pretrained(exported / "all")
    model = transformers.AutoModel.from_pretrained(exported / "all", dtype="bfloat16")
    assert model.dtype == torch.bfloat16 and model.quantizer.codebooks.codes.dtype == torch.float32
    for name, buffer in model.front_end.named_buffers():
        assert torch.equal(buffer, exact.front_end.get_buffer(name)), name
    torch.testing.assert_close(model(**batch).pooler_output, exact(**batch).pooler_output, rtol=0.1, atol=0.1)
    built = transformers.AutoModel.from_config(exact.config, dtype=torch.bfloat16)
    assert torch.equal(built.front_end.log_mel.filters, exact.front_end.log_mel.filters)


def without(folder, name, target):
    """A copy of an export without one of its weights."""
    shutil.copytree(folder, target)
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def changed(folder, target, **values):
    """A copy of an export with other values in its configuration."""
    shutil.copytree(folder, target)
    config = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **values}))
    return target


def test_what_cannot_be_loaded_is_said_in_one_sentence(exported, tmp_path) -> None:
    model, classifier = transformers.AutoModel, transformers.AutoModelForAudioClassification
    images = transformers.AutoModelForImageClassification
    for auto, folder, sentence in (
        (model, exported / "tokenizer", "this export holds tokenizer; expected one with encoder or"),
        (images, exported / "classifier", "an export for audio; expected one for image"),
        (classifier, IMAGES, "an export for image; expected one for audio"),
        (model, without(exported / "all", "encoder.norm.bias", tmp_path / "a"), "encoder.norm.bias is missing"),
        (classifier, without(exported / "classifier", "head.bias", tmp_path / "b"), "head.bias is missing"),
        (model, changed(exported / "all", tmp_path / "c", settings=None), "config.json: "),
        (model, changed(exported / "all", tmp_path / "d", format_version=9), "version 9; expected 1"),
        (model, changed(exported / "all", tmp_path / "e", parts=["x"]), "config.json: "),
    ):
        with pytest.raises(InputError) as error:
            auto.from_pretrained(folder)
        assert sentence in str(error.value) and "\n" not in str(error.value)
    audio = model.from_pretrained(exported / "encoder")
    with pytest.raises(InputError, match="no input_values; expected them, as it is a model for audio"):
        audio(pixel_values=torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match="this export holds encoder; expected one with tokenizer"):
        audio.tokenize(torch.zeros(1, 8000))
    with pytest.raises(InputError, match="a BridleConfig without settings"):
        adapter.BridleModel(adapter.BridleConfig())


def test_a_pickle_is_not_read(exported, tmp_path) -> None:
    shutil.copytree(exported / "encoder", tmp_path / "out")
    torch.save(load_file(tmp_path / "out/model.safetensors"), tmp_path / "out/pytorch_model.bin")
    (tmp_path / "out/model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        transformers.AutoModel.from_pretrained(tmp_path / "out")


def test_an_export_of_an_earlier_version_loads_by_its_class(exported, batch, tmp_path) -> None:
    shutil.copytree(exported / "all", tmp_path / "old")
    (tmp_path / "old/preprocessor_config.json").unlink()
    config = json.loads((tmp_path / "old/config.json").read_text())
    del config["model_type"]
    (tmp_path / "old/config.json").write_text(json.dumps(config))
    found = adapter.BridleModel.from_pretrained(tmp_path / "old")(**batch).pooler_output
    assert torch.equal(found, transformers.AutoModel.from_pretrained(exported / "all")(**batch).pooler_output)


def test_a_name_of_the_hub_is_downloaded(hub_here, exported, batch, tmp_path) -> None:
    hub_here.add("owner/name", {path.name: path.read_bytes() for path in (exported / "all").iterdir()}, "v1")
    where = {"revision": "v1", "cache_dir": tmp_path / "cache"}
    model = transformers.AutoModel.from_pretrained("owner/name", **where)
    assert transformers.AutoFeatureExtractor.from_pretrained("owner/name", **where).sampling_rate == 16000
    found = model(**batch).pooler_output
    assert torch.equal(found, transformers.AutoModel.from_pretrained(exported / "all")(**batch).pooler_output)


@pytest.mark.parametrize("name", ["bridle-small-audio", "bridle-small-image"])
def test_weights_of_the_package_load(name) -> None:
    assert transformers.AutoModel.from_pretrained(OWN_WEIGHTS / name).dtype == torch.float32


def test_without_transformers_the_sentence_names_the_extra(monkeypatch) -> None:
    for module in (
        "transformers",
        "bridle_fairseq.adapters.transformers",
        "bridle_fairseq.adapters.transformers_inputs",
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        InputError, match=r"needs transformers \(.*install it: pip install 'bridle_fairseq\[transformers\]'"
    ):
        importlib.import_module("bridle_fairseq.adapters.transformers")
