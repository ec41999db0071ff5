"""One model, by all ways to it: an export, the commands over a corpus, and the checkpoint itself."""

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
def ways(fairseq, whole, tmp_path_factory, modality):
    """An exported model, what the commands made of ``valid``, and its items as a user would read them."""
    folder, checkpoint = tmp_path_factory.mktemp("ways"), whole.path(40)
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


def test_codes_and_features_are_the_same(ways):
    model, items, rest, folder, manifest = ways
    codes, features = CachedCodes(folder / "valid.codes", manifest), CachedFeatures(folder / "valid.features", manifest)
    found, made, vectors = model.codes(items, *rest), model.features(items, *rest), model.embed(items, *rest)
    for row in range(len(items)):
        valid = slice(None) if found.padding_mask is None else ~found.padding_mask[row]
        assert np.array_equal(found.codes[row][valid].numpy(), codes.item(row)[: len(found.codes[row][valid])])
        if manifest.sizes[row] > 8000:
            continue  # sound in chunks, which pretrained.features does not make
        stored = torch.from_numpy(np.array(features.patches("patches.layer2", row))).flatten(0, 1)
        torch.testing.assert_close(made.x[row][valid], stored, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(vectors[row], torch.tensor(features["mean.layer2"][row]), atol=1e-5, rtol=1e-5)
    assert len(found.codes.unique()) > 4


def test_an_item_alone_is_the_item_padded_in_a_batch(ways):
    model, items, rest, *_ = ways
    if items[0].ndim == 4:  # frames x height x width x 3
        short = [item[: 4 - number, : 16 - 6 * number, : 8 + 4 * number] for number, item in enumerate(items)]
    else:
        short = [item[..., : item.shape[-1] * (4 + number) // 8] for number, item in enumerate(items)]
        short = [item if item.ndim == 1 else item[:, : 20 - 6 * number] for number, item in enumerate(short)]
    together, codes = model.features(short, *rest), model.codes(short, *rest)
    assert together.padding_mask.any(1).sum() >= len(items) - 1
    for row, item in enumerate(short):
        valid = ~together.padding_mask[row]
        torch.testing.assert_close(model.features([item], *rest).x[0], together.x[row][valid], atol=1e-5, rtol=1e-5)
        assert torch.equal(model.codes([item], *rest).codes[0], codes.codes[row][valid])


def test_fairseq_loads_the_checkpoint(ways, whole, modality):
    from fairseq import checkpoint_utils

    bridle_fairseq.register()
    (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(whole.path(40))])
    assert cfg.task.modality == model.settings.modality == modality
    task.load_dataset("valid")
    data = task.dataset("valid")
    batch = data.collater([data[row] for row in range(len(data))])["net_input"]
    exported, items, rest, *_ = ways
    assert torch.equal(model.eval().tokenize(**batch)[0], exported.codes(items, *rest).codes)
