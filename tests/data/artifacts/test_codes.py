"""Cached codes: the format, training items with codes, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from bridle_fairseq.data.artifacts.codes import CachedCodes, CodesInfo, CodesJob, read_info, segment_count, write_info
from bridle_fairseq.data.artifacts.indexed import write_index
from bridle_fairseq.data.artifacts.sharding import BlockResult
from bridle_fairseq.data.audio.augment import AudioAugment
from bridle_fairseq.data.audio.dataset import AudioDataset
from bridle_fairseq.utils.errors import InputError

SEGMENT, MINIMUM, PATCHES, LEVELS = 4000, 1000, 6, 3


def write_items(prefix, items):
    """Write ``.bin`` and ``.idx`` of codes, n x K each."""
    prefix.with_name(f"{prefix.name}.bin").write_bytes(b"".join(codes.astype("<u2").tobytes() for codes in items))
    write_index(str(prefix), [codes.size for codes in items], np.uint16)


@pytest.fixture
def cached(make_manifest, tmp_path):
    """A manifest of clips with 1, 3, 3 and 2 segments, and the prefix of codes whose values encode row and patch."""
    manifest = make_manifest([3000, 10500, 12000, 8999])
    write_items(
        tmp_path / "train.codes",
        [
            10000 * row + 10 * np.arange(patches)[:, None] + np.arange(LEVELS)
            for row, patches in enumerate([5, 16, 18, 12])
        ],
    )
    grid = {"frequency_patches": 2, "patch_frames": 8, "segment_samples": SEGMENT, "min_segment_samples": MINIMUM}
    grid |= {"patches_per_segment": PATCHES, "sample_rate": 16000}
    info = CodesInfo(LEVELS, 65536, grid, "abc", manifest.fingerprint())
    write_info(tmp_path / "train.codes", info)
    return manifest, tmp_path / "train.codes"


def dataset_of(manifest, codes, **settings):
    settings = {"max_sample_size": SEGMENT, "min_sample_size": MINIMUM, "training": True, **settings}
    return AudioDataset(manifest, codes=codes, **settings)


def test_info_round_trip(cached):
    _, prefix = cached
    info = read_info(prefix)
    assert (info.num_codebooks, info.segment_length, info.checkpoint_sha256) == (LEVELS, SEGMENT, "abc")
    fields = json.loads(prefix.with_suffix(".codes.json").read_text())
    assert fields["version"] == 1 and fields["grid"]["patches_per_segment"] == PATCHES
    assert fields["grid"]["frequency_patches"] == 2


def test_segment_count():
    assert [segment_count(n, 4000, 1000) for n in (1, 999, 3999, 4000, 4999, 5000, 8000, 8999, 9000)] == [
        *(1, 1, 1, 1, 1, 2, 2, 2, 3)
    ]
    assert segment_count(4001, 4000, 1) == 2 and segment_count(8000, 4000, 0) == 2


def test_items_and_segments(cached):
    manifest, prefix = cached
    codes = CachedCodes(prefix, manifest)
    assert len(codes) == 4 and codes.item(1).shape == (16, LEVELS) and codes.item(1).dtype == np.int64
    assert codes.item(3)[2].tolist() == [30020, 30021, 30022]
    assert [codes.segment_codes(1, number)[:, 0].tolist()[0] for number in range(3)] == [10000, 10060, 10120]
    assert [len(codes.segment_codes(1, number)) for number in range(3)] == [6, 6, 4]


def test_training_item_has_codes_of_its_crop(cached):
    manifest, prefix = cached
    dataset = dataset_of(manifest, CachedCodes(prefix, manifest))
    plain = AudioDataset(manifest, max_sample_size=SEGMENT, min_sample_size=MINIMUM, training=True, segment_crops=True)
    seen = set()
    for epoch in range(1, 15):
        dataset.set_epoch(epoch)
        plain.set_epoch(epoch)
        for row in range(4):
            item, without = dataset[row], plain[row]
            assert item["source"].equal(without["source"]) and "codes" not in without
            whole = AudioDataset(manifest)[row]["source"]
            first = int(item["codes"][0, 0])
            segment = (first - 10000 * row) // (10 * PATCHES)
            assert item["source"].equal(whole[segment * SEGMENT :][:SEGMENT])
            seen.add((row, segment))
    assert seen == {(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1)}
    batch = dataset.collater([dataset[0], dataset[2]])
    assert batch["codes"].shape == (2, 6, LEVELS) and (batch["codes"][0, 5:] == 0).all()


def test_larger_min_sample_size_than_the_codes(cached):
    manifest, prefix = cached
    dataset = dataset_of(manifest, CachedCodes(prefix, manifest), min_sample_size=2501)
    lengths = {(epoch, len(dataset[1]["source"])) for epoch in range(20) if dataset.set_epoch(epoch) is None}
    assert {length for _, length in lengths} == {SEGMENT}  # the third segment of 10500 samples has 2500


def test_codes_roll_with_the_clip(cached):
    manifest, prefix = cached
    dataset = dataset_of(manifest, CachedCodes(prefix, manifest), augment=AudioAugment(gain=False))
    plain = dataset_of(manifest, CachedCodes(prefix, manifest))
    shifts = set()
    for epoch in range(1, 15):
        dataset.set_epoch(epoch)
        plain.set_epoch(epoch)
        rolled, still = dataset[3], plain[3]
        shift = int((rolled["codes"][:, 0] == still["codes"][0, 0]).nonzero()) // 2
        assert torch.equal(rolled["codes"], still["codes"].roll(2 * shift, 0))
        assert torch.equal(rolled["source"][:3840], still["source"][:3840].roll(1280 * shift))
        assert torch.equal(rolled["source"][3840:], still["source"][3840:])
        shifts.add(shift)
    assert shifts == {0, 1, 2}  # 4000 samples are three patches of 1280, two rows each, and a rest


def test_row_without_codes_is_skipped(cached, tmp_path):
    manifest, prefix = cached
    write_items(prefix, [np.zeros((patches, LEVELS)) for patches in (5, 0, 18, 12)])
    dataset = dataset_of(manifest, CachedCodes(prefix, manifest))
    assert dataset[1]["source"] is None and dataset.skips.count == 1
    assert dataset.collater([dataset[0], dataset[1]])["id"].tolist() == [0]


def test_other_manifest_is_refused(cached, make_manifest):
    manifest, prefix = cached
    other = manifest.select([1, 0, 2, 3])
    with pytest.raises(InputError, match=r"train\.codes\.json: codes of another manifest"):
        CachedCodes(prefix, other)


@pytest.mark.parametrize(
    "settings,field",
    [
        ({"max_sample_size": 5000}, "segment_samples 4000; expected 5000"),
        ({"min_sample_size": 500}, "min_segment_samples 1000; expected at most min_sample_size 500"),
        ({"sample_rate": 8000}, "sample_rate 16000; expected 8000"),
    ],
)
def test_other_crop_settings_are_refused(cached, settings, field):
    manifest, prefix = cached
    with pytest.raises(InputError, match=field):
        dataset_of(manifest, CachedCodes(prefix, manifest), **settings)


def test_other_grid_is_refused(cached):
    manifest, prefix = cached
    codes = CachedCodes(prefix, manifest)
    codes.check(num_codebooks=LEVELS, patches_per_segment=PATCHES)
    with pytest.raises(InputError, match="codes with num_codebooks 3; expected 4"):
        codes.check(num_codebooks=4)


def test_missing_and_damaged_files(cached, tmp_path):
    manifest, prefix = cached
    with pytest.raises(InputError, match=r"none\.codes\.json: cannot read"):
        CachedCodes(tmp_path / "none.codes", manifest)
    info = read_info(prefix)
    write_info(prefix, dataclasses.replace(info, version=2))
    with pytest.raises(InputError, match="version 2; expected 1"):
        CachedCodes(prefix, manifest)
    write_info(prefix, info)
    data = (tmp_path / "train.codes.bin").read_bytes()
    (tmp_path / "train.codes.bin").write_bytes(data[:-2])
    with pytest.raises(InputError, match=r"train\.codes\.bin: 304 bytes; expected the 306"):
        CachedCodes(prefix, manifest)
    (tmp_path / "train.codes.bin").write_bytes(data)
    index = (tmp_path / "train.codes.idx").read_bytes()
    for content in (b"", b"junk" * 20, index[:-1], index.replace(b"\x08", b"\x04", 1)):
        (tmp_path / "train.codes.idx").write_bytes(content)
        with pytest.raises(InputError, match=r"train\.codes\.idx: "):
            CachedCodes(prefix, manifest)
    for content in ("", "{}", "[]", '{"version": 1, "grid": {}}'):
        (tmp_path / "train.codes.json").write_text(content)
        with pytest.raises(InputError, match=r"train\.codes\.json"):
            CachedCodes(prefix, manifest)


def test_invalid_codes_are_refused(cached):
    manifest, prefix = cached
    info = read_info(prefix)
    write_info(prefix, dataclasses.replace(info, codebook_size=20173))
    codes = CachedCodes(prefix, manifest)
    assert codes.item(2).shape == (18, LEVELS)
    with pytest.raises(InputError, match=r"codes.bin, item 4: 36 codes up to 30112; expected codes below 20173, 3 a"):
        codes.item(3)
    write_info(prefix, dataclasses.replace(info, num_codebooks=4))
    with pytest.raises(InputError, match=r"codes.bin, item 1: 15 codes up to 42; expected codes below 65536, 4 a"):
        CachedCodes(prefix, manifest).item(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_codebooks": 0}, "num_codebooks is 0; expected at least 1"),
        ({"num_codebooks": True}, "num_codebooks is True"),
        ({"num_codebooks": "3"}, "num_codebooks is '3'"),
        ({"codebook_size": 1}, "codebook_size is 1; expected at least 2"),
        ({"num_codebooks": 1000}, "num_codebooks 1000 and codebook_size 65536; expected a product of at most"),
        ({"grid": []}, r"grid is \[\]; expected values by name"),
        ({"grid": {"sample_rate": 16000}}, "grid.patches_per_segment is missing"),
        ({"grid": {"patches_per_segment": 0}}, "grid.patches_per_segment is 0"),
        ({"grid": {"patches_per_segment": 6, "segment_samples": 10**15}}, "grid.segment_samples is 1000000000000000"),
        ({"grid": {"patches_per_segment": 6, "later": "x"}}, "grid.'later' is 'x'"),
        ({"manifest_sha256": None}, "manifest_sha256 is None"),
        ({"more": 1}, "'more' is unknown"),
    ],
)
def test_edited_descriptions_are_refused(cached, change, message):
    _, prefix = cached
    path = prefix.with_suffix(".codes.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=rf"train\.codes\.json: .*{message}"):
        CachedCodes(prefix)


@pytest.mark.parametrize(
    "arrays",
    [
        {"codes": np.full(12, 7, np.uint16)},
        {"codes": np.zeros(11, np.uint16)},
        {"codes": np.zeros(12)},
        {"codes": np.zeros((4, 3), np.uint16)},
        {"sizes": np.array([12])},
        {"sizes": np.array([14, -2])},
        {"sizes": np.array([6.0, 6.0])},
        {"energy": np.ones(2)},
    ],
)
def test_blocks_that_cannot_be_right_are_refused(make_manifest, tmp_path, arrays):
    manifest = make_manifest([100, 100])
    info = CodesInfo(LEVELS, 7, {"patches_per_segment": PATCHES}, "abc", manifest.fingerprint())
    job, good = CodesJob(tmp_path / "s.codes", info, manifest), {"codes": np.zeros(12, np.uint16)}
    good |= {"sizes": np.array([6, 6]), "energy": np.ones(LEVELS)}
    job.write(0, BlockResult(good | arrays, []))
    with pytest.raises(InputError, match=r"000000\.npz: damaged .*; remove it, and run the command again"):
        job.join()
    job.write(0, BlockResult(good, []))
    assert job.join().patches == 4


def test_block_that_is_no_archive_of_arrays_is_refused(make_manifest, tmp_path):
    manifest = make_manifest([100])
    info = CodesInfo(LEVELS, 7, {"patches_per_segment": PATCHES}, "abc", manifest.fingerprint())
    job = CodesJob(tmp_path / "s.codes", info, manifest)
    job.write(0, BlockResult({}, [(0, "no sound")]))
    path = job.folder / "000000.npz"
    whole = path.read_bytes()
    for content in (b"", b"x", whole[:-9], whole.replace(b"no sound", b"no_sound"), whole.replace(b"NUMPY", b"numpy")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"000000\.npz: damaged"):
            job.skipped()
