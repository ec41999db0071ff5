"""Statistics of images: padding in a batch, the frame of a clip."""

import numpy as np
import torch

from bridle_fairseq.data.collate import pad_items
from bridle_fairseq.inference.baselines import PixelFeatures, baseline_of, colour_histogram, orientation_histogram
from bridle_fairseq.inference.extractors import LogMelFeatures, SegmentBatch
from bridle_fairseq.nn.frontend import front_end_of
from bridle_fairseq.nn.settings import BridleSettings


class Model:
    def __init__(self, modality):
        self.settings = BridleSettings(modality=modality, patch_size=[2, 16, 16] if modality == "video" else [16, 16])
        self.front_end = front_end_of(self.settings)


def test_baseline_of_each_modality():
    assert isinstance(baseline_of(Model("audio")), LogMelFeatures)
    assert isinstance(baseline_of(Model("image")), PixelFeatures)


def test_padding_is_ignored():
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in ((9, 20), (14, 8))]
    source, mask = pad_items(images)
    patches = Model("image").front_end(source, mask)
    features = PixelFeatures()
    found = features.extract_batch(SegmentBatch(source, mask, patches, patches.padding_mask, [], None))
    for image, of_image in zip(images, found, strict=True):
        row = features.merge_segments([of_image])
        assert list(row) == [array.name for array in features.arrays]
        assert [len(values) for values in row.values()] == [array.width for array in features.arrays]
        for values, maker in zip(row.values(), (colour_histogram, orientation_histogram), strict=True):
            np.testing.assert_allclose(values, maker(image.float() / 255).numpy(), rtol=1e-6)


def test_middle_frame_of_a_clip():
    frames = torch.randint(0, 256, (3, 5, 9, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    other = frames.flip(1)
    source, mask = pad_items([frames, other, frames[:, :, :6, :7]])
    patches = Model("video").front_end(source, mask)
    found = PixelFeatures().extract_batch(SegmentBatch(source, mask, patches, patches.padding_mask, [], None))
    for values, maker in zip(found[0].values(), (colour_histogram, orientation_histogram), strict=True):
        np.testing.assert_allclose(values, maker(frames[:, 2] / 255).numpy(), rtol=1e-6)
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    np.testing.assert_allclose(
        found[2]["pixels.colour histogram"], colour_histogram(frames[:, 2, :6, :7] / 255).numpy(), rtol=1e-6
    )
