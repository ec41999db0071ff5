"""A modality's data set as fairseq batches it."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from fairseq.data.iterators import EpochBatchIterator
from PIL import Image

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.data.audio import AudioDataset  # noqa: E402
from bridle_fairseq.data.image import ImageDataset  # noqa: E402
from bridle_fairseq.data.manifest import Manifest  # noqa: E402
from bridle_fairseq.tasks.media_data import FairseqMedia  # noqa: E402

SIZES = {"audio": [4000, 500, 3900, 600, 550], "image": [1] * 5}


@pytest.fixture(params=["audio", "image"])
def dataset(request, tmp_path) -> FairseqMedia:
    """Five items; those of sound are of two lengths, more or less."""
    random = np.random.default_rng(0)
    sizes = SIZES[request.param]
    for number, size in enumerate(sizes):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * random.standard_normal(size), 16000)
        Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    if request.param == "audio":
        manifest = Manifest(tmp_path, [f"{number}.wav" for number in range(5)], sizes)
        return FairseqMedia(AudioDataset(manifest, training=True, num_buckets=2))
    manifest = Manifest(tmp_path, [f"{number}.png" for number in range(5)], sizes)
    return FairseqMedia(ImageDataset(manifest, image_size=8, training=True))


def test_fairseq_batches_it(dataset):
    order = dataset.ordered_indices()
    by_tokens = dataset.batch_by_size(order, max_tokens=2 * int(dataset.sizes.max()))
    assert sorted(np.concatenate(by_tokens)) == list(range(5))
    assert sorted(len(batch) for batch in by_tokens) == ([1, 2, 2] if dataset.sizes.max() == 1 else [2, 3])
    assert [len(batch) for batch in dataset.batch_by_size(order, max_sentences=4)] == [4, 1]
    iterator = EpochBatchIterator(dataset, dataset.collater, by_tokens, num_workers=1)
    batches = list(iterator.next_epoch_itr())
    assert sorted(sum((batch["id"].tolist() for batch in batches), [])) == list(range(5))
    assert not dataset.supports_prefetch and dataset.supports_fetch_outside_dataloader


def test_no_item_is_left_out_for_its_length_without_a_word(dataset, capsys):
    kept, left_out = dataset.filter_indices_by_size(dataset.ordered_indices(), int(dataset.sizes.max()))
    assert sorted(kept) == [0, 1, 2, 3, 4] and left_out == []
    with pytest.raises(SystemExit):
        dataset.filter_indices_by_size(dataset.ordered_indices(), int(dataset.sizes.max()) - 1)
    assert "expected at least" in capsys.readouterr().err


def test_epochs_reach_the_media(dataset):
    first = dataset[0]["source"]
    assert torch.equal(dataset[0]["source"], first)
    if dataset.sizes.max() > 1:
        return  # no augmentation here
    dataset.media.augment = None
    dataset.set_epoch(2)
    assert dataset.media.epoch == 2
