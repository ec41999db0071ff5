"""The video data set: frames of a clip, randomness, padding, skipped files, views."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bridle_fairseq.data.image.augment import ImageAugment
from bridle_fairseq.data.image.decode import crop_and_resize
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.data.video.dataset import ClipReader, VideoDataset, read_clip
from bridle_fairseq.data.video.modality import VideoModality
from bridle_fairseq.data.video.reader import VideoReader
from bridle_fairseq.nn.frontend import front_end_of
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import DecodeError, InputError

FRAMES = (30, 9, 3)
SHOWN = {"num_frames": 4, "frame_stride": 2, "image_size": 24, "valid_crop": 0.75}


@pytest.fixture
def manifest(write_video, tmp_path):
    """Three videos of three sizes; the last one is shorter than a clip."""
    for number, frames in enumerate(FRAMES):
        write_video(f"{number}.mp4", frames, (64 - 8 * number, 40 + 16 * number))
    return Manifest(tmp_path, [f"{number}.mp4" for number in range(3)], FRAMES)


def sources(dataset):
    return [dataset[row]["source"] for row in range(len(dataset))]


def test_validation_uses_middle_clip_and_centre_crop(manifest):
    dataset = VideoDataset(manifest, **SHOWN, augment=ImageAugment())
    reader, plain = ClipReader(**SHOWN), VideoReader()
    for row, source in enumerate(sources(dataset)):
        path = manifest.path(row)
        assert source.shape == (3, 4, 24, 24) and source.dtype == torch.uint8 and source.is_contiguous()
        first = max(0, (FRAMES[row] - 7 + 1) // 2)
        expected = plain.clips(path, [0.0], FRAMES[row], 1, 32)[0]  # 24 / 0.75
        for step in range(4):
            frame = expected[min(first + 2 * step, FRAMES[row] - 1)].numpy()
            assert np.array_equal(source[:, step].numpy(), crop_and_resize(frame[None], 24, 0.75)[0].numpy())
        assert torch.equal(source, reader.read(path))
        assert np.array_equal(source.permute(1, 2, 3, 0).numpy(), read_clip(path, 4, 2, 24, 0.75))
    assert torch.equal(sources(dataset)[2][:, 2], sources(dataset)[2][:, 3])  # the last frame is held
    dataset.set_epoch(2)
    assert torch.equal(dataset[0]["source"], sources(dataset)[0])


def test_training_depends_on_seed_epoch_row(manifest):
    settings = {**SHOWN, "training": True, "augment": ImageAugment(min_area=0.4)}
    first, second = VideoDataset(manifest, seed=5, **settings), VideoDataset(manifest, seed=5, **settings)
    assert all(map(torch.equal, sources(first), reversed([second[row]["source"] for row in reversed(range(3))])))
    epoch = sources(first)
    first.set_epoch(2)
    for a, b in zip(epoch, sources(first), strict=True):
        assert a.shape == (3, 4, 24, 24) and not torch.equal(a, b)


def test_random_start(manifest):
    options = {**SHOWN, "num_frames": 2, "training": True}
    dataset, middle = VideoDataset(manifest, **options), VideoDataset(manifest, **options, random_start=False)
    steps = VideoReader().clips(manifest.path(0), [0.0], 30, 1, 32)[0].numpy()
    steps = crop_and_resize(steps, 24, 0.75).numpy()
    starts = set()
    for epoch in range(1, 31):
        dataset.set_epoch(epoch)
        clip = dataset[0]["source"].numpy()
        (start,) = [number for number, frame in enumerate(steps[:28]) if np.array_equal(clip[:, 0], frame)]
        assert np.array_equal(clip[:, 1], steps[start + 2])
        starts.add(start)
        middle.set_epoch(epoch)
        assert np.array_equal(middle[0]["source"][:, 0].numpy(), steps[14])
    assert len(starts) > 8 and min(starts) < 6 and max(starts) > 21


def test_all_frames_are_cropped_alike(write_video, tmp_path):
    """All frames of a still video stay equal, however they are cropped and flipped."""
    path = write_video("still.mp4", 1, (64, 48))
    dataset = VideoDataset(
        Manifest(tmp_path, [path], [1]), num_frames=3, image_size=24, training=True, augment=ImageAugment()
    )
    seen = set()
    for epoch in range(1, 9):
        dataset.set_epoch(epoch)
        clip = dataset[0]["source"]
        assert torch.equal(clip[:, 0], clip[:, 1]) and torch.equal(clip[:, 0], clip[:, 2])
        seen.add(clip.numpy().tobytes())
    assert len(seen) == 8


def test_frames_of_any_size_are_padded(manifest):
    dataset = VideoDataset(manifest, num_frames=2, image_size=0)
    batch = dataset.collater([dataset[0], dataset[1]])
    source, mask = batch["net_input"]["source"], batch["net_input"]["padding_mask"]
    assert source.shape == (2, 3, 2, 56, 64) and mask.shape == (2, 2, 56, 64)
    assert mask[0, :, 40:].all() and mask[1, :, :, 56:].all() and int((~mask).sum()) == batch["ntokens"]
    assert dataset.approximate_patches(BridleSettings(modality="video", patch_size=[2, 8, 8])) == float("inf")


def test_patch_count_includes_incomplete_patches(manifest):
    settings = BridleSettings(modality="video", patch_size=[3, 16, 8])
    assert VideoDataset(manifest, **SHOWN).approximate_patches(settings) == 3 * 2 * 2 * 3


def test_unreadable_files_are_skipped_and_listed(manifest, tmp_path):
    (tmp_path / "1.mp4").write_bytes(b"")
    (tmp_path / "2.mp4").write_bytes(b"<html>not found</html>" * 40)
    dataset = VideoDataset(manifest, **SHOWN, skips=SkipLog(manifest, tmp_path / "skipped.tsv"))
    assert [source is None for source in sources(dataset)] == [False, True, True]
    assert [(row, reason.split(":")[0]) for row, _, reason in dataset.skips.entries()] == [
        (1, "empty file"),
        (2, "not readable as video"),
    ]
    with pytest.raises(DecodeError, match="empty file"):
        ClipReader(**SHOWN).length(manifest.path(1))
    assert ClipReader(**SHOWN).length(manifest.path(0), 30) == 1


def test_items_in_threads(manifest):
    dataset = VideoDataset(manifest, **SHOWN)
    expected = sources(dataset)
    with ThreadPoolExecutor(3) as pool:
        for row, item in zip([0, 1, 2] * 3, pool.map(dataset.__getitem__, [0, 1, 2] * 3), strict=True):
            assert torch.equal(item["source"], expected[row])


def test_invalid_settings(manifest):
    for options, sentence in (
        ({"num_frames": 0}, "task.num_frames is 0 and task.frame_stride 4; expected at least 1 each"),
        ({"frame_stride": -2}, "task.frame_stride -2"),
        ({"image_size": -1}, "task.image_size is -1"),
    ):
        with pytest.raises(InputError, match=sentence):
            VideoDataset(manifest, **options)
    with pytest.raises(InputError, match="task.frame_stride 0"):
        ClipReader(4, 0, 24, 1.0)


def test_layout_of_codes():
    front_end = front_end_of(BridleSettings(modality="video", patch_size=[2, 8, 6]))
    layout = VideoModality().layout_of_codes(SimpleNamespace(**SHOWN), front_end, 1)
    assert layout == {
        **SHOWN,
        **{"patch_frames": 2, "patch_height": 8, "patch_width": 6},
        **{"rows": 3, "columns": 4, "patches_per_segment": 24},
    }
    with pytest.raises(InputError, match="expected a checkpoint trained with task.image_size above 0"):
        VideoModality().layout_of_codes(SimpleNamespace(**{**SHOWN, "image_size": 0}), front_end, 1)


def test_even_views(manifest):
    reader, path = ClipReader(**SHOWN).of_views(2, 3), manifest.path(0)  # 30 frames of 64 x 40 pixels
    assert reader.length(path) == 6
    frames = VideoReader().clips(path, [0.0], 30, 1, 24)[0].numpy()
    assert frames.shape[1:3] == (24, 38)
    for number in range(6):
        start, left = (0, 23)[number // 3], (0, 7, 14)[number % 3]
        clip = reader.read(path, number)
        for step in range(4):
            expected = frames[start + 2 * step, :, left : left + 24].transpose(2, 0, 1)
            assert np.array_equal(clip[:, step].numpy(), expected)
    upright = ClipReader(**SHOWN).of_views(1, 2)  # 48 x 72 pixels
    assert not torch.equal(upright.read(manifest.path(2), 0), upright.read(manifest.path(2), 1))
    clips = ClipReader(**SHOWN).of_views(3, 1)
    assert torch.equal(clips.read(path, 1), ClipReader(**SHOWN).read(path))
    with pytest.raises(InputError, match="several crops of frames as they are"):
        ClipReader(4, 2, 0, 1.0).of_views(1, 3)


def test_repeats_decode_a_file_once(manifest, monkeypatch):
    asked, clips = [], VideoReader.clips
    monkeypatch.setattr(VideoReader, "clips", lambda *args, **named: asked.append(args[2]) or clips(*args, **named))
    dataset = VideoDataset(manifest, **SHOWN, training=True, repeats=3, augment=ImageAugment())
    batch = dataset.collater([dataset[0], dataset[1]])
    assert batch["id"].tolist() == [0, 0, 0, 1, 1, 1] and batch["net_input"]["source"].shape == (6, 3, 4, 24, 24)
    assert len({clip.numpy().tobytes() for clip in batch["net_input"]["source"]}) == 6
    assert [len(set(places)) for places in asked] == [3, 3]
    assert "more" not in VideoDataset(manifest, **SHOWN, repeats=3)[0]  # one view per file in validation


def test_clip_is_not_overwritten_by_the_next(manifest):
    for size in (0, 24):
        shown = {**SHOWN, "image_size": size}
        first = read_clip(manifest.path(0), *shown.values())
        kept = first.copy()
        read_clip(manifest.path(1), *shown.values())
        assert np.array_equal(first, kept)
