"""The audio data set: items, crops, order, skipped clips, data loader workers."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from bridle_fairseq.data.audio import dataset as audio
from bridle_fairseq.data.audio.augment import AudioAugment
from bridle_fairseq.data.audio.dataset import AudioDataset, AudioReader, total_seconds
from bridle_fairseq.data.audio.decode import read_crop, read_info
from bridle_fairseq.data.audio.modality import AudioModality
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.utils.errors import DecodeError, InputError


def sources(dataset, rows=None):
    return [dataset[row]["source"] for row in (range(len(dataset)) if rows is None else rows)]


def test_item_is_resampled_clip(make_manifest):
    manifest = make_manifest([4000, 5512], rate=11025)
    for row, item in enumerate(sources(AudioDataset(manifest))):
        assert item.dtype == torch.float32 and len(item) == (5805, 7999)[row]
        assert np.array_equal(item.numpy(), read_crop(manifest.path(row), 16000))


def test_fixed_crop_in_validation_random_crop_in_training(make_manifest):
    manifest = make_manifest([16000])
    whole = read_crop(manifest.path(0), 16000)
    valid = AudioDataset(manifest, max_sample_size=4000, augment=AudioAugment())
    assert np.array_equal(valid[0]["source"].numpy(), whole[:4000])
    training = AudioDataset(manifest, max_sample_size=4000, training=True)
    starts = set()
    for epoch in range(1, 30):
        training.set_epoch(epoch)
        crop = training[0]["source"].numpy()
        [start] = [n for n in np.flatnonzero(whole == crop[0]) if np.array_equal(whole[n : n + 4000], crop)]
        starts.add(int(start))
    assert len(starts) > 25 and min(starts) < 3000 and max(starts) > 9000


def test_randomness_depends_on_seed_epoch_row_only(make_manifest):
    manifest = make_manifest([9000, 9000, 9000])
    settings = {"max_sample_size": 4000, "training": True, "augment": AudioAugment()}
    first, second = AudioDataset(manifest, seed=5, **settings), AudioDataset(manifest, seed=5, **settings)
    forwards, backwards = sources(first), sources(second, [2, 1, 0])[::-1]
    np.random.seed(1)
    torch.manual_seed(1)
    assert all(map(torch.equal, forwards, backwards)) and all(map(torch.equal, forwards, sources(first)))
    second.set_epoch(2)
    others = [*sources(second), *sources(AudioDataset(manifest, seed=6, **settings))]
    assert not any(torch.equal(a, b) for a in forwards for b in others)


def test_rows_have_independent_randomness(make_manifest, write_sound):
    manifest = make_manifest([9000, 9000])
    for row in range(2):
        write_sound(f"{row}.wav", 9000, subtype="FLOAT", seed=7)
    assert torch.equal(*sources(AudioDataset(manifest)))
    assert not torch.equal(*sources(AudioDataset(manifest, max_sample_size=4000, training=True)))
    assert not torch.equal(*sources(AudioDataset(manifest, training=True, augment=AudioAugment(roll=False))))


def test_workers_do_not_change_batches(make_manifest, tmp_path):
    manifest = make_manifest([9000, 300, 5000, 7000])
    dataset = AudioDataset(manifest, max_sample_size=4000, training=True, augment=AudioAugment())
    batches = [
        [
            batch["net_input"]["source"]
            for batch in torch.utils.data.DataLoader(
                dataset, batch_sampler=[[0, 1], [2, 3]], collate_fn=dataset.collater, num_workers=workers
            )
        ]
        for workers in (0, 2)
    ]
    assert all(map(torch.equal, *batches))


def test_unusable_clips_are_listed_and_left_out(make_manifest, tmp_path, write_sound):
    manifest = make_manifest([4000] * 6)
    (tmp_path / "0.wav").write_bytes(b"junk")
    (tmp_path / "1.wav").write_bytes((tmp_path / "1.wav").read_bytes()[:3000])
    (tmp_path / "2.wav").write_bytes(b"")
    write_sound("3.wav", samples=np.full(4000, np.nan), subtype="FLOAT")
    (tmp_path / "4.wav").unlink()
    write_sound("4.wav", 4001)
    skips = SkipLog(manifest, tmp_path / "skipped.tsv")
    dataset = AudioDataset(manifest, skips=skips)
    for _ in range(2):
        batch = dataset.collater([dataset[row] for row in range(6)])
        assert batch["id"].tolist() == [5]
        assert dataset.collater([dataset[row] for row in range(5)]) == {}
    assert skips.count == 5
    reasons = {row: reason for row, _, reason in skips.entries()}
    said = [
        "not readable",
        "the manifest says 4000",
        "empty file",
        "sample 0 is nan",
        "4001 samples, the manifest says 4000",
    ]
    assert sorted(reasons) == list(range(5)) and all(text in reasons[row] for row, text in enumerate(said))


def test_workers_report_skipped_rows(make_manifest, tmp_path):
    manifest = make_manifest([4000] * 4)
    (tmp_path / "2.wav").write_bytes(b"junk")
    skips = SkipLog(manifest, tmp_path / "skipped.tsv")
    dataset = AudioDataset(manifest, skips=skips)
    loader = torch.utils.data.DataLoader(dataset, batch_size=1, collate_fn=dataset.collater, num_workers=2)
    assert [bool(batch) for batch in loader] == [True, True, False, True]
    assert skips.count == 1 and skips.entries()[0][0] == 2
    skips.check()
    with pytest.raises(InputError, match="1 of 4 clips"):
        skips.check(0)


def test_short_clips_are_not_counted_as_skipped(make_manifest):
    manifest = make_manifest([399, 400, 5000])
    dataset = AudioDataset(manifest, min_sample_size=400, training=True)
    assert sorted(dataset.ordered_indices()) == [1, 2]
    assert dataset[0]["source"] is None and dataset[1]["source"] is not None and dataset.skips.count == 0


def test_invalid_settings_and_files_fail_early(make_manifest, tmp_path):
    manifest = make_manifest([4000, 4000])
    with pytest.raises(InputError, match="max_sample_size 100 is under min_sample_size 400"):
        AudioDataset(manifest, max_sample_size=100, min_sample_size=400)
    with pytest.raises(InputError, match="need max_sample_size"):
        AudioDataset(manifest, segment_crops=True)
    with pytest.raises(InputError, match="the longest of 2 clips has 4000 samples; expected min_sample_size 5000"):
        AudioDataset(manifest, min_sample_size=5000)
    for row in range(2):
        (tmp_path / f"{row}.wav").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"none of 2 files tried can be read, such as .*0\.wav \(not readable"):
        AudioDataset(manifest)
    (tmp_path / "1.wav").unlink()
    with pytest.raises(InputError, match="line 3: no such file"):
        AudioDataset(manifest)


def test_sizes_with_one_and_several_rates(make_manifest, write_sound, tmp_path):
    dataset = AudioDataset(make_manifest([8000, 4000], rate=8000), max_sample_size=12000)
    assert dataset.sizes.tolist() == [12000, 8000]
    assert dataset.sizes.tolist() == [12000, 8000]
    write_sound("fast.wav", 48000, 48000)
    dataset = AudioDataset(Manifest(tmp_path, ["0.wav", "fast.wav"], [8000, 48000]))
    assert dataset.sizes.tolist() == [16000, 96000] and len(dataset[1]["source"]) == 16000


def test_size_is_too_small_below_the_lowest_probed_rate(write_sound, tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "PROBED_FILES", 1)
    write_sound("fast.wav", 16000, 16000)
    write_sound("slow.wav", 8000, 8000)
    dataset = AudioDataset(Manifest(tmp_path, ["fast.wav", "slow.wav"], [16000, 8000]))
    assert dataset.sizes.tolist() == [16000, 8000] and len(dataset[1]["source"]) == 16000


def test_training_order_shuffles_within_length_buckets(make_manifest):
    sizes = [1000 + 10 * number for number in range(60)]
    dataset = AudioDataset(make_manifest(sizes), training=True, num_buckets=4, seed=3)
    order = dataset.ordered_indices()
    assert sorted(order) == list(range(60)) and np.array_equal(order, dataset.ordered_indices())
    for number, bucket in enumerate(np.split(order, 4)):
        expected = np.arange(60)[::-1].reshape(4, 15)[number]
        assert set(bucket) == set(expected) and not np.array_equal(bucket, np.sort(bucket))
    dataset.set_epoch(2)
    assert np.array_equal(order, dataset.ordered_indices())
    other = AudioDataset(dataset.manifest, training=True, num_buckets=4, seed=4)
    assert not np.array_equal(order, other.ordered_indices())
    assert np.array_equal(AudioDataset(dataset.manifest).ordered_indices(), np.arange(60))


def test_persistent_workers_follow_the_epoch(make_manifest):
    dataset = AudioDataset(make_manifest([9000, 9000]), max_sample_size=4000, training=True)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, collate_fn=dataset.collater, num_workers=1, persistent_workers=True
    )
    for epoch in (1, 2, 3):
        dataset.set_epoch(epoch)
        (batch,) = loader
        assert torch.equal(
            batch["net_input"]["source"], dataset.collater([dataset[0], dataset[1]])["net_input"]["source"]
        )


def test_segment_crops_begin_at_segments(make_manifest):
    manifest = make_manifest([10500])
    whole = read_crop(manifest.path(0), 16000)
    dataset = AudioDataset(manifest, max_sample_size=4000, min_sample_size=1000, training=True, segment_crops=True)
    seen = set()
    for epoch in range(20):
        dataset.set_epoch(epoch)
        crop = dataset[0]["source"].numpy()
        start = next(s for s in (0, 4000, 8000) if np.array_equal(whole[s : s + 4000], crop))
        seen.add(start)
    assert seen == {0, 4000, 8000}
    dataset = AudioDataset(manifest, max_sample_size=4000, min_sample_size=2501, training=True, segment_crops=True)
    lengths = set()
    for epoch in range(20):
        dataset.set_epoch(epoch)
        lengths.add(len(dataset[0]["source"]))
    assert lengths == {4000}


def test_segment_probability_is_its_share_of_the_clip(make_manifest):
    dataset = AudioDataset(make_manifest([5000]), max_sample_size=4000, training=True, segment_crops=True)
    drawn = [dataset._crop(5000, np.random.default_rng(seed)) for seed in range(400)]
    assert set(drawn) == {(0, 0), (4000, 1)} and 50 <= drawn.count((4000, 1)) <= 110
    assert {dataset._crop(4001, np.random.default_rng(seed)) for seed in range(100)} == {(0, 0)}
    assert {dataset._crop(300, np.random.default_rng(seed)) for seed in range(10)} == {(0, 0)}


def test_task_min_sample_size(make_manifest):
    cfg = SimpleNamespace(sample_rate=16000, max_sample_size=4000, min_sample_size=500, gain=False)
    dataset = AudioModality().dataset(make_manifest([400, 4600]), cfg)
    assert dataset.min_sample_size == 500 and dataset.ordered_indices().tolist() == [1]
    front_end = SimpleNamespace(grid=lambda sizes: (3, 2), layout={})
    assert AudioModality().layout_of_codes(cfg, front_end, 4000)["min_segment_samples"] == 500


def test_total_seconds_with_several_rates(write_sound, tmp_path):
    write_sound("a.wav", 8000, 16000)
    write_sound("b.wav", 8000, 8000)
    manifest = Manifest(tmp_path, ["a.wav", "b.wav"], [8000, 8000])
    assert total_seconds(manifest) == pytest.approx(1.5) and total_seconds(manifest, [1]) == 1.0
    with pytest.raises(InputError, match="line 3: .*b.wav: 8000 samples, the manifest says 7999"):
        total_seconds(Manifest(tmp_path, ["a.wav", "b.wav"], [8000, 7999]))


def test_length_that_only_the_manifest_states(tmp_path, write_sound):
    write_sound("a.flac", 24000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])  # the number of samples: not stated
    (tmp_path / "b.flac").write_bytes(data)
    crops = []
    for name in ("a.flac", "b.flac"):
        dataset = AudioDataset(Manifest(tmp_path, [name], [24000]), max_sample_size=8000, training=True, seed=3)
        crops.append(dataset[0]["source"])
    assert torch.equal(*crops)
    reader, path = AudioReader(16000), str(tmp_path / "b.flac")
    assert reader.length(path) == reader.length(path, 24000) == 24000 and reader.length(path, 30000) == 30000
    assert len(reader.read(path, 20000, 4000)) == 4000
    with pytest.raises(DecodeError, match="^ends after 24000 samples at 16000 Hz; expected more"):
        reader.read(path, 20000, 10000)


def test_lossy_file_is_used_if_its_length_differs_a_little(tmp_path):
    """libsndfile guesses a length from the size of an MP3 without a frame count."""
    mp3_without_count(tmp_path / "a.mp3", 37000)
    (tmp_path / "a.mp3").write_bytes(b"ID3\3\0\0\0\0\x0f\0" + bytes(1920) + (tmp_path / "a.mp3").read_bytes())
    path, guess = str(tmp_path / "a.mp3"), soundfile.info(tmp_path / "a.mp3").frames
    found = len(read_crop(path, 16000))
    assert found < guess
    for size in (guess, found, found + 1105):
        manifest = Manifest(tmp_path, ["a.mp3"], [size])
        assert AudioReader(16000).length(path, size) == found
        for options in ({"max_sample_size": 2000}, {"max_sample_size": 9000, "segment_crops": True}, {}):
            dataset = AudioDataset(manifest, training=True, min_sample_size=400, **options)
            for epoch in range(1, 30):
                dataset.set_epoch(epoch)
                samples = dataset[0]["source"]
                assert samples is not None and (options.get("segment_crops") or len(samples) in (2000, found))
    assert AudioReader(16000).length(path, found - 1105) == found - 1105  # as before


@pytest.mark.parametrize("count", [True, False])
def test_truncated_mp3_is_noticed(tmp_path, count):
    mp3_without_count(tmp_path / "a.mp3", 37000)
    if count:
        soundfile.write(tmp_path / "a.mp3", np.random.default_rng(0).standard_normal(37000) / 9, 16000)
    path, size = str(tmp_path / "a.mp3"), read_info(str(tmp_path / "a.mp3")).num_frames
    (tmp_path / "a.mp3").write_bytes((tmp_path / "a.mp3").read_bytes()[:-4000])
    manifest = Manifest(tmp_path, ["a.mp3"], [size])
    dataset = AudioDataset(manifest)
    assert dataset[0]["source"] is None and dataset.skips.count == 1
    with pytest.raises(DecodeError, match=r"ends after \d+ of its|corrupt"):
        reader = AudioReader(16000)
        reader.read(path, 0, reader.length(path, size))


def test_lossless_lengths_stay_exact(tmp_path, write_sound):
    write_sound("a.flac", 4000)
    write_sound("a.opus", 4000)
    assert read_info(str(tmp_path / "a.opus"), 4001).num_frames == 4000
    for name, size in (("a.flac", 4001), ("a.opus", 6000)):
        with pytest.raises(DecodeError, match=f"4000 samples, the manifest says {size}"):
            read_info(str(tmp_path / name), size)


def mp3_without_count(path, num_samples):
    """An MP3 without the frame that states its length."""
    noise = np.random.default_rng(0).standard_normal(num_samples) / 9
    soundfile.write(path, noise, 16000, bitrate_mode="CONSTANT", compression_level=0.5)
    data = path.read_bytes()
    path.write_bytes(data[data.index(b"\xff\xf3", 4) :])
