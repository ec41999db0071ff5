"""The rows of epochs with fairseq's iterators: disjoint shards, and the same batches after a resume."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from fairseq.data.iterators import EpochBatchIterator

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.data.audio.augment import AudioAugment  # noqa: E402
from bridle_fairseq.data.audio.dataset import AudioDataset  # noqa: E402
from bridle_fairseq.data.manifests.labels import Classes, Labels  # noqa: E402
from bridle_fairseq.data.manifests.manifest import Manifest  # noqa: E402
from bridle_fairseq.data.manifests.skipped import SkipLog  # noqa: E402
from bridle_fairseq.data.manifests.transcripts import SPECIAL, Transcripts, Vocabulary  # noqa: E402
from bridle_fairseq.tasks.datasets import FairseqMedia, SampledMedia, TranscribedMedia  # noqa: E402

LENGTHS = [400 * (1 + row % 5) for row in range(20)]
ROWS = [[0]] * 18 + [[1]] * 2


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    """20 clips of 400 to 2000 samples; row r begins with the value r / 100."""
    folder = tmp_path_factory.mktemp("clips")
    for row, length in enumerate(LENGTHS):
        wave = np.random.default_rng(row).uniform(-0.5, 0.5, length)
        soundfile.write(folder / f"{row}.wav", wave, 16000, subtype="FLOAT")
    return Manifest(folder, [f"{row}.wav" for row in range(20)], LENGTHS)


def dataset(manifest, size: int = 30, **options) -> SampledMedia:
    labels = Labels(ROWS, Classes(["a", "b"], ["a", "b"]))
    media = AudioDataset(manifest, training=True, seed=3, **options)
    return SampledMedia(media, labels=labels, multi_label=False, samples_per_epoch=size)


def shuffled(manifest, **options) -> FairseqMedia:
    """Three buckets: of 4, 8 and 8 clips."""
    return FairseqMedia(AudioDataset(manifest, training=True, seed=3, num_buckets=3, **options))


def iterator(data, shards: int = 1, shard: int = 0, workers: int = 0, **limits) -> EpochBatchIterator:
    batches = data.batch_by_size(data.ordered_indices(), **(limits or {"max_sentences": 4}))
    return EpochBatchIterator(
        data,
        data.collater,
        batches,
        seed=3,
        num_shards=shards,
        shard_id=shard,
        num_workers=workers,
        reuse_dataloader=True,
    )


def ids(batches) -> list[list[int]]:
    return [batch["id"].tolist() if batch else [] for batch in batches]


def test_weighted_sampling_balances_classes(manifest) -> None:
    data = dataset(manifest, 3000)
    drawn = Counter(row for batch in ids(iterator(data, max_sentences=64).next_epoch_itr()) for row in batch)
    assert sum(drawn.values()) == 3000 and len(drawn) == 20
    assert abs(drawn[18] + drawn[19] - 1500) < 120


def test_each_epoch_draws_other_clips_with_their_targets(manifest) -> None:
    whole = iterator(dataset(manifest))
    epochs = []
    for _ in range(3):
        batches = list(whole.next_epoch_itr())
        assert all(int(t) == (i >= 18) for b in batches for i, t in zip(b["id"], b["target"], strict=True))
        epochs.append(sorted(row for batch in ids(batches) for row in batch))
    assert epochs[0] != epochs[1] != epochs[2]


def test_ranks_partition_the_slots_of_an_epoch(manifest) -> None:
    whole = Counter(row for batch in ids(iterator(dataset(manifest)).next_epoch_itr()) for row in batch)
    shares = [ids(iterator(dataset(manifest), 3, shard).next_epoch_itr()) for shard in range(3)]
    assert Counter(row for share in shares for batch in share for row in batch) == whole
    assert {len(share) for share in shares} == {3}  # 8 batches: a rank's last one is empty
    assert sum(batch == [] for share in shares for batch in share) == 1


@pytest.mark.parametrize("make", [dataset, shuffled])
@pytest.mark.parametrize("workers", [0, 1])
def test_resuming_mid_epoch_gives_the_same_batches(manifest, make, workers) -> None:
    augment = {"augment": AudioAugment(roll=True, gain=True)}
    first = iterator(make(manifest, **augment), workers=workers)
    list(first.next_epoch_itr())
    second_epoch = first.next_epoch_itr()
    for _ in range(3):
        next(second_epoch)
    state = first.state_dict()
    left = list(second_epoch)

    data = make(manifest, **augment)
    data.set_epoch(state["epoch"])  # as fairseq's task does when it makes an iterator
    resumed = iterator(data, workers=workers)
    resumed.load_state_dict(state)
    again = list(resumed.next_epoch_itr())
    assert len(again) == len(left) == len(first) - 3 and resumed.epoch == 2
    for a, b in zip(left, again, strict=True):
        assert torch.equal(a["id"], b["id"]) and torch.equal(a["net_input"]["source"], b["net_input"]["source"])


def test_batches_have_other_clips_in_each_epoch(manifest) -> None:
    """Every clip once, with the bucket's other clips; the same workers read all epochs."""
    whole, seen = iterator(shuffled(manifest), workers=1), []
    lengths = [sorted({LENGTHS[row] for row in bucket}) for bucket in np.split(whole.dataset.order.first, [4, 12])]
    for _ in range(4):
        batches = ids(whole.next_epoch_itr())
        assert sorted(row for batch in batches for row in batch) == list(range(20))
        assert all(any({LENGTHS[row] for row in batch} <= set(known) for known in lengths) for batch in batches)
        seen.append({frozenset(batch) for batch in batches})
    assert lengths == [[2000], [1200, 1600], [400, 800]]
    assert all(len(epoch & before) <= 3 for number, epoch in enumerate(seen) for before in seen[:number])
    (process,) = whole.dataloader._iterator._workers
    assert process.is_alive()


def test_ranks_partition_the_clips_of_each_epoch(manifest) -> None:
    ranks = [iterator(shuffled(manifest), 2, rank) for rank in range(2)]
    for _ in range(3):
        clips = [row for rank in ranks for batch in ids(rank.next_epoch_itr()) for row in batch]
        assert sorted(clips) == list(range(20))


def test_crop_and_augmentation_follow_the_row_and_not_its_batch(manifest) -> None:
    data = shuffled(manifest, augment=AudioAugment(roll=True, gain=True), max_sample_size=700)
    data.set_epoch(5)
    for slot in range(20):
        item = data[slot]
        assert torch.equal(item["source"], data.media.item(item["id"])["source"])


def test_max_tokens_holds_in_each_epoch(manifest) -> None:
    whole = iterator(shuffled(manifest), max_tokens=5000)
    for _ in range(10):
        assert all(batch["net_input"]["source"].numel() <= 5000 for batch in whole.next_epoch_itr())


def test_repeated_clip_is_augmented_differently(manifest) -> None:
    data = dataset(manifest, 200, augment=AudioAugment(roll=True, gain=True))
    places = np.flatnonzero(data.order.rows(1) == 19)
    assert len(places) > 10
    sounds = {data[int(place)]["source"].numpy().tobytes() for place in places}
    assert len(sounds) == len(places)


def test_batches_have_similar_lengths_within_max_tokens(manifest) -> None:
    data = dataset(manifest, 400)
    for batches in (list(iterator(data).next_epoch_itr()), list(iterator(data, max_tokens=6000).next_epoch_itr())):
        padded = sum(batch["net_input"]["source"].numel() for batch in batches)
        assert padded < 1.15 * sum(batch["ntokens"] for batch in batches)
        assert max(batch["net_input"]["source"].numel() for batch in batches) <= 4 * 2000
    assert max(batch["net_input"]["source"].numel() for batch in batches) <= 6000


def test_transcript_may_fill_all_frames_of_its_clip(manifest, tmp_path) -> None:
    """Row r has 1 + r % 5 frames; two equal symbols need a blank between them."""
    vocabulary = Vocabulary([*SPECIAL, "|", "A", "B"], "ltr")
    symbols = {0: "A", 1: "A A", 2: "A A", 3: "A B A |", 4: "A B A B A |"}  # need 1, 3, 3, 4 and 6 frames of 1 to 5
    rows = [vocabulary.numbers(symbols.get(row, "A")) for row in range(20)]
    media = AudioDataset(manifest, training=False, skips=SkipLog(manifest, tmp_path / "skipped.tsv"))
    data = TranscribedMedia(media, transcripts=Transcripts(rows, vocabulary), frames=lambda samples: samples // 400)
    assert [row for row in range(5) if data[row]["source"] is not None] == [0, 2, 3]
    skipped = [line.split("\t") for line in (tmp_path / "skipped.tsv").read_text().splitlines()]
    assert [line[0] for line in skipped] == ["1", "4"] and "2 symbols need 3 frames, the clip has 2" in skipped[0][2]
    batch = data.collater([data[row] for row in range(5)])
    assert batch["target_lengths"].tolist() == [1, 2, 4] and batch["id"].tolist() == [0, 2, 3]
