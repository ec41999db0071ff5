"""The image data set: randomness, padding, skipped files, repeated views."""

import numpy as np
import pytest
import torch
from PIL import Image

from bridle_fairseq.data.image.augment import ImageAugment
from bridle_fairseq.data.image.dataset import ImageDataset, ImageReader
from bridle_fairseq.data.image.decode import read_image
from bridle_fairseq.data.image.modality import ImageModality
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import DecodeError, InputError


@pytest.fixture
def manifest(tmp_path):
    """Six images of noise of different sizes."""
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30 - 3 * number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return Manifest(tmp_path, [f"{number}.png" for number in range(6)], [1] * 6)


def sources(dataset):
    return [dataset[row]["source"] for row in range(len(dataset))]


def test_validation_uses_centre_crop(manifest):
    dataset = ImageDataset(manifest, image_size=16, valid_crop=0.5, augment=ImageAugment())
    for row, source in enumerate(sources(dataset)):
        assert source.dtype == torch.uint8
        assert np.array_equal(source.numpy(), read_image(manifest.path(row), 16, 0.5))
        assert torch.equal(source, ImageReader(16, 0.5).read(manifest.path(row)))
    dataset.set_epoch(2)
    assert torch.equal(dataset[3]["source"], sources(dataset)[3])
    without = ImageDataset(manifest, image_size=16, valid_crop=0.5, training=True)
    assert all(map(torch.equal, sources(dataset), sources(without)))


def test_training_depends_on_seed_epoch_row(manifest):
    settings = {"image_size": 16, "training": True, "augment": ImageAugment()}
    first, second = ImageDataset(manifest, seed=5, **settings), ImageDataset(manifest, seed=5, **settings)
    assert all(map(torch.equal, sources(first), reversed([second[row]["source"] for row in reversed(range(6))])))
    epoch = sources(first)
    first.set_epoch(2)
    other_seed = ImageDataset(manifest, seed=6, **settings)
    for a, b, c in zip(epoch, sources(first), sources(other_seed), strict=True):
        assert a.shape == (3, 16, 16) and not torch.equal(a, b) and not torch.equal(a, c)
    assert not torch.equal(first.item(0, 1)["source"], first.item(0, 2)["source"])


def test_half_of_the_images_are_flipped(manifest):
    dataset = ImageDataset(manifest, image_size=0, training=True, augment=ImageAugment(crop=False))
    mirrored = 0
    for epoch in range(1, 41):
        dataset.set_epoch(epoch)
        pixels, whole = dataset[0]["source"], torch.from_numpy(read_image(manifest.path(0)))
        assert torch.equal(pixels, whole) or torch.equal(pixels, whole.flip(2))
        mirrored += not torch.equal(pixels, whole)
    assert 10 <= mirrored <= 30


def test_images_of_any_size_are_padded(manifest):
    dataset = ImageDataset(manifest, image_size=0)
    batch = dataset.collater([dataset[1], dataset[4]])
    source, mask = batch["net_input"]["source"], batch["net_input"]["padding_mask"]
    assert source.shape == (2, 3, 24, 27) and mask.shape == (2, 24, 27) and batch["ntokens"] == 21 * 27 + 24 * 18
    assert np.array_equal(source[1, :, :, :18].numpy(), read_image(manifest.path(4)))
    assert mask[0, 21:].all() and mask[1, :, 18:].all() and int((~mask).sum()) == batch["ntokens"]
    assert dataset.approximate_patches(BridleSettings()) == float("inf")


def test_unreadable_files_are_skipped_and_listed_once(manifest, tmp_path):
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:200])
    (tmp_path / "4.png").write_bytes(b"")
    skips = SkipLog(manifest, tmp_path / "skipped.tsv")
    dataset = ImageDataset(manifest, image_size=16, skips=skips)
    for _ in range(2):
        assert [row for row, source in enumerate(sources(dataset)) if source is None] == [2, 4]
    assert [(row, reason.split(":")[0]) for row, _, reason in skips.entries()] == [(2, "corrupt"), (4, "empty file")]
    assert dataset.collater([dataset[2], dataset[4]]) == {}


def test_invalid_settings(manifest):
    for options, sentence in (
        ({"image_size": -1}, "task.image_size is -1"),
        ({"valid_crop": 0.0}, "task.valid_crop is 0.0"),
        ({"training": True, "augment": ImageAugment(min_area=1.5)}, "task.min_area is 1.5"),
    ):
        with pytest.raises(InputError, match=sentence):
            ImageDataset(manifest, **options)
    with pytest.raises(InputError, match="no such file"):
        ImageDataset(Manifest(manifest.root, ["gone.png"], [1]))


def test_reader_checks_header_and_size(manifest, tmp_path):
    reader = ImageReader(16, 1.0)
    path = manifest.path(0)
    assert reader.length(path) == reader.length(path, 1) == ImageModality().measure(path) == 1
    with pytest.raises(DecodeError, match="the manifest says size 48000"):
        reader.length(manifest.path(0), 48000)
    (tmp_path / "0.png").write_text("text")
    with pytest.raises(DecodeError, match="not readable as an image"):
        reader.length(manifest.path(0))


def test_patch_count_includes_incomplete_patches(manifest):
    dataset = ImageDataset(manifest, image_size=20)
    assert dataset.approximate_patches(BridleSettings(modality="image", patch_size=[16, 8])) == 6 * 2 * 3


def test_repeats_are_adjacent_random_views(manifest):
    dataset = ImageDataset(manifest, image_size=16, training=True, repeats=2, augment=ImageAugment())
    batch = dataset.collater([dataset[2], dataset[0]])
    assert batch["id"].tolist() == [2, 2, 0, 0] and batch["nsentences"] == 4
    assert len({image.numpy().tobytes() for image in batch["net_input"]["source"]}) == 4
    assert torch.equal(
        ImageDataset(manifest, image_size=16, training=True, augment=ImageAugment())[2]["source"], dataset[2]["source"]
    )
    with pytest.raises(InputError, match="task.repeats is 0; expected at least 1"):
        ImageDataset(manifest, training=True, repeats=0)
