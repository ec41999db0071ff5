"""A modality's data set as a data set of fairseq."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import soundfile
import torch
from fairseq.data.iterators import EpochBatchIterator
from PIL import Image

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.data.audio.dataset import AudioDataset  # noqa: E402
from bridle_fairseq.data.image.dataset import ImageDataset  # noqa: E402
from bridle_fairseq.data.manifests.manifest import Manifest  # noqa: E402
from bridle_fairseq.inference.classify import batches_of  # noqa: E402
from bridle_fairseq.tasks.base import MediaTask  # noqa: E402
from bridle_fairseq.tasks.datasets import FairseqMedia  # noqa: E402
from bridle_fairseq.utils.errors import InputError  # noqa: E402

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


def test_fairseq_makes_batches(dataset):
    order = dataset.ordered_indices()
    by_tokens = dataset.batch_by_size(order, max_tokens=2 * int(dataset.sizes.max()))
    assert sorted(np.concatenate(by_tokens)) == list(range(5))
    assert sorted(len(batch) for batch in by_tokens) == ([1, 2, 2] if dataset.sizes.max() == 1 else [2, 3])
    assert [len(batch) for batch in dataset.batch_by_size(order, max_sentences=4)] == [4, 1]
    iterator = EpochBatchIterator(dataset, dataset.collater, by_tokens, num_workers=1)
    batches = list(iterator.next_epoch_itr())
    assert sorted(sum((batch["id"].tolist() for batch in batches), [])) == list(range(5))
    assert not dataset.supports_prefetch and dataset.supports_fetch_outside_dataloader


def test_max_tokens_below_the_longest_item_is_an_error(dataset, capsys):
    kept, left_out = dataset.filter_indices_by_size(dataset.ordered_indices(), int(dataset.sizes.max()))
    assert sorted(kept) == [0, 1, 2, 3, 4] and left_out == []
    with pytest.raises(SystemExit):
        dataset.filter_indices_by_size(dataset.ordered_indices(), int(dataset.sizes.max()) - 1)
    assert "expected at least" in capsys.readouterr().err


def test_set_epoch_reaches_the_media(dataset):
    first = dataset[0]["source"]
    assert torch.equal(dataset[0]["source"], first)
    if dataset.sizes.max() > 1:
        return  # no augmentation here
    dataset.media.augment = None
    dataset.set_epoch(2)
    assert dataset.media.epoch == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_files_of_a_batch_are_read_in_parallel(dataset, workers, monkeypatch):
    alone = [dataset[slot]["source"] for slot in range(4)]
    together, load = threading.Barrier(4), type(dataset.media)._load

    def load_together(self, row, random):
        together.wait(timeout=30)  # breaks unless four threads come
        return load(self, row, random)

    monkeypatch.setattr(type(dataset.media), "_load", load_together)
    dataset = FairseqMedia(dataset.media, read_threads=4)
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=[[0, 1, 2, 3]], collate_fn=list, num_workers=workers)
    for _ in range(2):
        for items in loader:
            assert [item["id"] for item in items] == [dataset.row(slot) for slot in range(4)]
            assert all(torch.equal(item["source"], before) for item, before in zip(items, alone, strict=True))


def test_zero_read_threads_is_an_error(dataset):
    with pytest.raises(InputError, match=r"task.read_threads is 0; expected at least 1"):
        FairseqMedia(dataset.media, read_threads=0)


def test_error_of_a_data_loader_worker_ends_the_step(dataset, monkeypatch, capsys):
    def load(self, row, random):
        raise InputError(f"row {row}: spoilt")

    monkeypatch.setattr(type(dataset.media), "_load", load)
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=[[3, 1]], collate_fn=dataset.collater, num_workers=1, multiprocessing_context="fork"
    )
    (batch,) = loader
    assert batch["id"].tolist() == [dataset.row(3), dataset.row(1)]
    assert dataset.batch_by_size(dataset.ordered_indices(), max_sentences=2)  # the error is the step's to report
    task = MediaTask(None)
    for step, others in ((task.train_step, 4), (task.valid_step, 2)):
        with pytest.raises(SystemExit) as ended:
            step(batch, *[None] * others)
        assert ended.value.code == 2
        assert capsys.readouterr().err == f"bridle_fairseq: error: row {dataset.row(3)}: spoilt\n"
    with pytest.raises(InputError, match="row .: spoilt"):
        list(batches_of(torch.nn.Linear(1, 1), dataset, 2, 1))
    assert dataset.skips.count == 0
