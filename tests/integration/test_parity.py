"""An export, the commands on a corpus, and the checkpoint in fairseq give the same codes and features."""

import numpy as np
import pytest
import soundfile
import torch

import bridle_fairseq
from bridle_fairseq import pretrained
from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.artifacts.features import CachedFeatures
from bridle_fairseq.data.image.decode import read_image
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.video.dataset import read_clip

pytestmark = pytest.mark.modalities("audio", "image", "video")


@pytest.fixture(scope="module")
def outputs(fairseq, full_run, tmp_path_factory, modality):
    """The exported model, the outputs of the commands on ``valid``, and its items as a user reads them."""
    folder, checkpoint = tmp_path_factory.mktemp("outputs"), full_run.path(40)
    path = fairseq.data / "valid.tsv"
    fairseq.run(folder, "bridle", "export", checkpoint, folder / "export")
    fairseq.run(folder, "bridle", "tokenize", checkpoint, path, "--out", folder)
    fairseq.run(folder, "bridle", "features", checkpoint, path, "--pooling", "mean", "patches", "--out", folder)
    model, manifest = pretrained.load(folder / "export"), Manifest.read(path)
    paths = [manifest.path(row) for row in range(len(manifest))]
    if modality == "audio":
        items, rest = [soundfile.read(path, dtype="float32")[0][:8000] for path in paths], [16000]
    elif modality == "video":
        shown = model.num_frames, model.frame_stride, model.image_size, model.valid_crop
        items, rest = [read_clip(path, *shown) for path in paths], []
    else:
        items, rest = [read_image(path, model.image_size, model.valid_crop) for path in paths], []
    return model, items, rest, folder, manifest


def test_codes_and_features_are_the_same(outputs):
    model, items, rest, folder, manifest = outputs
    codes, features = CachedCodes(folder / "valid.codes", manifest), CachedFeatures(folder / "valid.features", manifest)
    tokenized, encoded, vectors = model.codes(items, *rest), model.features(items, *rest), model.embed(items, *rest)
    for row in range(len(items)):
        valid = slice(None) if tokenized.padding_mask is None else ~tokenized.padding_mask[row]
        assert np.array_equal(tokenized.codes[row][valid].numpy(), codes.item(row)[: len(tokenized.codes[row][valid])])
        if manifest.sizes[row] > 8000:
            continue  # long sounds are encoded in chunks, but pretrained.features does not use chunks
        stored = torch.from_numpy(np.array(features.patches("patches.layer2", row))).flatten(0, -2)
        torch.testing.assert_close(encoded.x[row][valid], stored, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(vectors[row], torch.tensor(features["mean.layer2"][row]), atol=1e-5, rtol=1e-5)
    assert len(tokenized.codes.unique()) > 4


def test_padding_does_not_change_codes_and_features(outputs):
    model, items, rest, *_ = outputs
    if items[0].ndim == 4:  # frames x height x width x 3
        short = [item[: 4 - number, : 16 - 6 * number, : 8 + 4 * number] for number, item in enumerate(items)]
    else:
        short = [item[..., : item.shape[-1] * (4 + number) // 8] for number, item in enumerate(items)]
        short = [item if item.ndim == 1 else item[:, : 20 - 6 * number] for number, item in enumerate(short)]
    batched, codes = model.features(short, *rest), model.codes(short, *rest)
    assert batched.padding_mask.any(1).sum() >= len(items) - 1
    for row, item in enumerate(short):
        valid = ~batched.padding_mask[row]
        torch.testing.assert_close(model.features([item], *rest).x[0], batched.x[row][valid], atol=1e-5, rtol=1e-5)
        assert torch.equal(model.codes([item], *rest).codes[0], codes.codes[row][valid])


def test_codes_of_the_checkpoint_in_fairseq_are_the_same(outputs, full_run, modality):
    from fairseq import checkpoint_utils

    bridle_fairseq.register()
    (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(full_run.path(40))])
    assert cfg.task.modality == model.settings.modality == modality
    task.load_dataset("valid")
    data = task.dataset("valid")
    batch = data.collater([data[row] for row in range(len(data))])["net_input"]
    exported, items, rest, *_ = outputs
    assert torch.equal(model.eval().tokenize(**batch)[0], exported.codes(items, *rest).codes)
